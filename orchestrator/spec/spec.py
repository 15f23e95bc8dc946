"""What the operator asked for: one frozen tree, parsed once, never changed.

Sizes are whole numbers of what their name says; durations are seconds (`*_s`).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core import Role
from orchestrator.spec.catalogue import CATALOGUE, ModelProfile, SystemPrompt
from orchestrator.spec.observing import DoctorSpec, TracingSpec, WhySpec
from orchestrator.spec.scaling import ScalingSpec
from orchestrator.spec.step_costs import StepCosts
from orchestrator.spec.telemetry import TelemetrySpec
from orchestrator.spec.tenancy import PrefixSharing, PricesSpec, ThinkingSpec, UsageSpec


class EngineKind(StrEnum):
    """Which engine the gangs run."""

    VLLM = "vllm"
    FAKE = "fake"  # scripted tokens on a clock of its own; for tests and large local fleets


class Device(StrEnum):
    """What the engines compute on."""

    GPU = "gpu"
    CPU = "cpu"  # development and tests; needs the `cpu` extra


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine, and the flags of its own that we pass through unread."""

    kind: EngineKind = EngineKind.VLLM
    version: str = "0.32.0"  # of vLLM, on every node: KV is for engines of one version
    device: Device = Device.GPU
    args: tuple[str, ...] = ()
    block_size: int | None = None  # tokens per KV block; None leaves it to the engine
    dtype: str = "auto"
    fake_step_s: float = 0.02  # fake engine: one token of every running request per step
    fake_prefill_s_per_token: float = 0.0002  # fake engine: prefill time per prompt token
    start_timeout_s: float = 3_600.0  # 671B weights from a slow disk; vLLM's own limit is shorter
    # What a node reads from where the weights are; None: not known, and no start is predicted.
    storage_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class GangSpec:
    """The shape of one gang: tensor parallel inside a node; stages and data-parallel ranks, which
    have each a KV cache of their own and share the experts, across `nodes`.

    With `tensor_across_nodes` it is the tensor-parallel group that goes across them.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    nodes: int = 1  # hosts that the gang spans; divides what goes across them
    tensor_across_nodes: bool = False  # only where one NVLink domain has several nodes: GB200 NVL72

    @property
    def gpus(self) -> int:
        """GPUs of the whole gang."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def gpus_per_node(self) -> int:
        """GPUs of each of its nodes; exact only for a gang that `placement` accepted."""
        return self.gpus // self.nodes


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """All replicas of one role."""

    role: Role
    replicas: int = 1
    gang: GangSpec = field(default_factory=GangSpec)
    node_group: str | None = None  # its gangs run on nodes labelled for it; None: on any
    args: tuple[str, ...] = ()  # flags of this pool's engines, behind those of `engine.args`
    costs: StepCosts | None = None  # of a rank, as the plan predicts them; None: unknown
    # That each node of a gang reads when it starts, as the plan predicts them; None: unknown.
    node_weights_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its checkpoint, what clients call it, and the pools that serve it."""

    # A folder with config.json, weights and tokenizer.json, or where one is: hf://OWNER/NAME[@REV],
    # s3://BUCKET/PREFIX, pvc://CLAIM[/FOLDER].
    path: str
    pools: tuple[PoolSpec, ...]
    name: str = "DeepSeek-R1-0528"  # of the catalogue, which knows its template and limits
    aliases: tuple[str, ...] | None = None  # public names; None: those of the catalogue
    system_prompt: SystemPrompt | None = None  # None: as the catalogue has it
    max_model_len: int = 131_072  # tokens, prompt plus output; R1's advertised context
    engine: EngineSpec = field(default_factory=EngineSpec)
    tokenizer: str | None = None  # a folder with tokenizer.json; None: `path`, which is no bucket
    weights_cache: str = "/var/cache/r1-serve"  # of each node, for what is downloaded
    scaling: ScalingSpec | None = None  # None: as many gangs as `replicas` of each pool says
    prices: PricesSpec | None = None  # None: it costs nothing

    def pool(self, role: Role) -> PoolSpec | None:
        """The pool of that role, if the model has one."""
        return next((pool for pool in self.pools if pool.role is role), None)

    @property
    def profile(self) -> ModelProfile:
        """What the catalogue knows of it."""
        return CATALOGUE[self.name]


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """The token channel between a gateway and an engine process."""

    heartbeat_s: float = 1.0
    lost_after_s: float = 10.0  # silence after which the other side counts as dead
    max_requests: int = 256  # open requests of one gateway at one rank


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class of service; a tenant may have one. Bounds hold at each gateway."""

    name: str
    priority: int = 0  # what waits of a higher one is admitted first; may be below 0
    wait_s: float | None = None  # None: as of `admission`
    queue_requests_max: int | None = None  # None: as many as wait in all
    thinking_tokens: int | None = None  # soft budget of its thoughts


@dataclass(frozen=True, slots=True)
class AdmissionSpec:
    """How much waits at one gateway, how long, and who goes first.

    Tenants of a class get equal shares of predicted work, whoever sends more. `wait_s` keeps TTFT
    within its bound under overload: what would begin later is refused at once, with the time to
    come back at, instead of making everybody late.
    """

    queue_requests_max: int = 1_024
    queue_timeout_s: float = 600.0  # the official API closes a request not begun after 10 minutes
    wait_s: float | None = None  # predicted wait beyond which nobody waits; None: the time-out's
    tenant_requests_max: int | None = None  # of one tenant that wait; None: as many as in all
    # Credits of a rank that decodes, of all gateways together; what is more waits here and not in
    # the engine. None: `channel.max_requests` for each gateway.
    rank_requests_max: int | None = None
    classes: tuple[ClassSpec, ...] = ()

    @property
    def class_names(self) -> frozenset[str]:
        """Of the classes that a tenant may have."""
        return frozenset(each.name for each in self.classes)


class KvHandoff(StrEnum):
    """Who moves a prompt's KV from the prefill rank to the decode rank, and what both know."""

    PULL = "pull"  # decode pulls afterwards: NIXL
    PULL_BOUND = "pull_bound"  # the same, but prefill knows its peer beforehand
    PUSH = "push"  # both begin at once, and prefill pushes: Mooncake


class Fabric(StrEnum):
    """What joins the nodes."""

    RDMA = "rdma"  # InfiniBand or RoCE, a NIC for each GPU, all to all
    TCP = "tcp"  # a network without RDMA, shared by the node


@dataclass(frozen=True, slots=True)
class HandoffSpec:
    """One request's passage from prefill to decode."""

    kv: KvHandoff = KvHandoff.PULL
    fabric: Fabric | None = None  # None: what the connector takes by itself
    in_place_max_tokens: int = 15  # prompts up to this long are prefilled by the decode rank
    attempts_max: int = 4  # submissions of one request that do not get on, after which it fails
    # Engines that may die at the beginning of one request's work before it is taken to be the cause
    # and fails. Its prompt is then refused for `quarantine_s`.
    deaths_max: int = 2
    quarantine_s: float = 600.0
    retry_pause_s: float = 1.0  # when every rank has failed it, before one of them is tried again
    resume_wait_s: float = 180.0  # how long a request waits for a rank once it has begun


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """The HTTP side."""

    replicas: int = 2
    host: str = "0.0.0.0"
    port: int = 8000
    keep_alive_s: float = 10.0  # below the tightest common idle limit of proxies
    stream_s_max: float = 7_200.0  # the longest stream that a configuration reload may not cut
    client_stall_s: float = 60.0  # a client that reads nothing for so long is cut
    max_body_bytes: int = 8 << 20


class ApiProfile(StrEnum):
    """Which rules of the official API apply; each is named after the month it came with."""

    DEEPSEEK_2501 = "deepseek-2501"  # R1
    DEEPSEEK_2505 = "deepseek-2505"  # R1-0528
    DEEPSEEK_2512 = "deepseek-2512"  # V3.2: `thinking`, tools while thinking


class StreamUsage(StrEnum):
    """Where a stream carries its usage."""

    WIRE = "wire"  # on the last chunk, always, as the official API does
    OPENAI = "openai"  # on a chunk of its own without choices, if the client asks for it


class FirstDelta(StrEnum):
    """What the first chunk of a thinking stream has as content."""

    WIRE = "wire"  # null, as the official API does
    EMPTY_STRING = "empty_string"  # for clients that add content up without looking


@dataclass(frozen=True, slots=True)
class ApiSpec:
    """What clients are promised."""

    profile: ApiProfile = ApiProfile.DEEPSEEK_2512
    strict: bool = False  # refuse what the profile refuses, where we would understand it
    honor_sampling: bool = False  # the official reasoner ignores a client's temperature and top_p
    reasoning_alias: bool = False  # send `reasoning` beside `reasoning_content`
    stream_usage: StreamUsage = StreamUsage.WIRE
    stream_first_delta: FirstDelta = FirstDelta.WIRE
    keys_path: str | None = None  # a file of hashed API keys, or a folder of such; None: open
    tenants_path: str | None = None  # a YAML file of `TenantsSpec`; None: nobody has limits
    prefix_sharing: PrefixSharing = PrefixSharing.USER


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """How gangs are watched and brought back."""

    health_period_s: float = 2.0
    start_attempts: int = 3  # failed first starts of a pool after which it is given up
    stuck_after_s: float = 300.0  # requests in flight and no engine step: the gang is dead
    cut_off_after_s: float = 30.0  # a node or rank of it that does not answer: the same
    # How long what runs on a gang that drains may go on there, before it is moved to another: as
    # long as most thoughts take. What shorter waits do is in docs/scaling.md.
    drain_wait_s: float = 1_200.0
    drain_s: float = 1_800.0  # what could not be moved may take this long; then the drain ends it


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """A cluster of simulated nodes on this machine, for `r1-serve up`."""

    nodes: int = 3
    gpus_per_node: int = 8  # fake: they exist for the scheduler only
    # Each node in a network namespace, with an address of its own; needs root. False: all of them
    # on the loopback.
    namespaces: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything the operator asked for."""

    models: tuple[ModelSpec, ...]
    channel: ChannelSpec = field(default_factory=ChannelSpec)
    admission: AdmissionSpec = field(default_factory=AdmissionSpec)
    handoff: HandoffSpec = field(default_factory=HandoffSpec)
    gateway: GatewaySpec = field(default_factory=GatewaySpec)
    api: ApiSpec = field(default_factory=ApiSpec)
    fleet: FleetSpec = field(default_factory=FleetSpec)
    doctor: DoctorSpec = field(default_factory=DoctorSpec)
    why: WhySpec = field(default_factory=WhySpec)
    tracing: TracingSpec = field(default_factory=TracingSpec)
    thinking: ThinkingSpec = field(default_factory=ThinkingSpec)
    usage: UsageSpec = field(default_factory=UsageSpec)
    telemetry: TelemetrySpec = field(default_factory=TelemetrySpec)
    local: LocalSpec = field(default_factory=LocalSpec)
    log_dir: str = "logs"

    def model(self, name: str) -> ModelSpec:
        """The model of that name, which there must be."""
        return next(model for model in self.models if model.name == name)
