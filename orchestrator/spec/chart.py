"""The Helm chart's values, but for `spec`, which is `Spec`: values.schema.json is made from these.

In YAML the names are in camelCase, as Kubernetes has them. Sizes are Kubernetes quantities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

Quantity = Annotated[str, StringConstraints(pattern=r"^([0-9]+(\.[0-9]+)?([kMGT]i?|m)?)?$")]
Anything = Mapping[str, object]  # handed to Kubernetes as it is


@dataclass(frozen=True, slots=True)
class Global:
    """What a chart above this one may set for all of its charts."""

    image_registry: str = ""


class PullPolicy(StrEnum):
    """When a node fetches an image that it has."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Image:
    """The one image of all pods: the engine's, with r1-serve in it."""

    repository: str = "r1-serve"
    tag: str = ""  # empty: the chart's appVersion
    digest: str = ""  # sha256:...; goes before the tag
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """One pool's hosts: each of the group's replicas is a gang of `num_of_hosts` hosts."""

    replicas: Annotated[int, Field(ge=0)]
    num_of_hosts: Annotated[int, Field(ge=1)]
    gpus_per_host: Annotated[int, Field(ge=1)]
    gpu: str = ""  # of the catalogue of hardware; empty: none, the engines are fake or on CPUs
    rdma: bool = False
    one_nvlink_domain: bool = False  # the hosts of a replica share one
    labels: Mapping[str, str] = field(default_factory=dict)  # of its Ray nodes
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by replica, if planned


@dataclass(frozen=True, slots=True)
class Pods:
    """What the pods of one kind get."""

    cpu: Quantity
    memory: Quantity
    shm: Quantity = ""  # of /dev/shm, which counts as memory; empty: the container runtime's 64 MiB
    ephemeral_storage: Quantity = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Anything, ...] = ()
    affinity: Anything = field(default_factory=dict)
    runtime_class_name: str = ""
    priority_class_name: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra_env: Mapping[str, str] = field(default_factory=dict)
    extra_volumes: Mapping[str, Anything] = field(default_factory=dict)  # a volume by its name
    extra_mounts: Mapping[str, str] = field(default_factory=dict)  # where each is mounted
    patch: Anything = field(default_factory=dict)  # merged into the pod's spec, last


@dataclass(frozen=True, slots=True)
class Rdma:
    """How a pod gets at RDMA devices."""

    resource: str = "rdma/ib"
    count: Annotated[int, Field(ge=1)] = 1  # of each host
    networks: str = ""  # the annotation k8s.v1.cni.cncf.io/networks


@dataclass(frozen=True, slots=True)
class Network:
    """What collectives and KV go over. None of it is guessed: empty leaves it to the library."""

    rdma: Rdma = field(default_factory=Rdma)
    host_network: bool = False
    nccl: Mapping[str, str] = field(default_factory=dict)  # IB_HCA: mlx5 is NCCL_IB_HCA=mlx5
    ucx: Mapping[str, str] = field(default_factory=dict)
    nvshmem: Mapping[str, str] = field(default_factory=dict)


class GangScheduler(StrEnum):
    """Who sees to it that all hosts of a replica are placed or none."""

    NONE = "none"
    KUEUE = "kueue"
    VOLCANO = "volcano"
    YUNIKORN = "yunikorn"
    KAI = "kai"


@dataclass(frozen=True, slots=True)
class Scheduling:
    """Where gangs go."""

    gang: GangScheduler = GangScheduler.NONE
    queue: str = ""
    leaf_label: str = ""  # of nodes: hosts of one replica have the same value of it
    spread_label: str = ""  # of nodes: replicas of a group are spread over its values
    product_label: str = "nvidia.com/gpu.product"  # of nodes; with `products`
    products: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # its values by GPU


@dataclass(frozen=True, slots=True)
class Dra:
    """GPUs by dynamic resource allocation instead of an extended resource."""

    enabled: bool = False
    device_class: str = "gpu.nvidia.com"
    compute_domain: bool = False  # of GB200: one for each replica's hosts


class AccessMode(StrEnum):
    """Who may mount a claim."""

    MANY = "ReadWriteMany"
    MANY_READ_ONLY = "ReadOnlyMany"
    ONCE = "ReadWriteOnce"


@dataclass(frozen=True, slots=True)
class Claim:
    """A volume of weights, mounted at /mnt/weights/NAME."""

    create: bool = False  # else there is one
    size: Quantity = "800Gi"
    storage_class_name: str = ""
    access_mode: AccessMode = AccessMode.MANY


@dataclass(frozen=True, slots=True)
class Weights:
    """Where checkpoints are, and how fast they are read."""

    # A model's path: pvc://CLAIM/FOLDER, hostPath:///FOLDER, hf://OWNER/NAME@REVISION, s3://...,
    # oci://IMAGE. It goes before `path` in the spec.
    models: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    # That one host reads; what a start is predicted from.
    bytes_per_s: Annotated[float, Field(gt=0)] = 1e9
    cache_host_path: str = ""  # of each node, for what is downloaded; empty: the pod's own disk
    predownload: bool = False  # a job fetches hf:// into the cache of each node first
    hub_token_secret: str = ""  # its key `token`
    bucket_secret: str = ""  # environment for s3://


@dataclass(frozen=True, slots=True)
class Redis:
    """The store that lets a Ray head restart without its workers."""

    address: str = ""  # redis://HOST:PORT; empty: none
    password_secret: str = ""  # its key `password`


class Upgrade(StrEnum):
    """What happens when the pods must change."""

    NONE = "None"  # the operator changes nothing by itself: delete the RayCluster
    NEW_CLUSTER = "NewCluster"  # a second one beside the first: twice the GPUs
    INCREMENTAL = "NewClusterWithIncrementalUpgrade"  # the same, step by step, through a Gateway


@dataclass(frozen=True, slots=True)
class Ray:
    """The Ray cluster."""

    version: str = "2.60.0"
    upgrade: Upgrade = Upgrade.NONE
    gateway_class_name: str = ""  # for the incremental upgrade
    auth: bool = True  # tokens between Ray's processes
    auth_secret: str = ""  # its key `auth_token`; empty: the operator makes one
    redis: Redis = field(default_factory=Redis)


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys: a Secret with files of hashed ones, as `r1-serve key` makes."""

    secret: str = ""  # empty: the API is open
    test_secret: str = ""  # its key `key`: a key in clear, for `helm test`


class ServiceType(StrEnum):
    """How far a Service reaches."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


@dataclass(frozen=True, slots=True)
class Service:
    """What clients reach inside the cluster."""

    type: ServiceType = ServiceType.CLUSTER_IP
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A Gateway's way in."""

    enabled: bool = False
    parent_refs: tuple[Anything, ...] = ()
    hostnames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ingress:
    """An Ingress's way in."""

    enabled: bool = False
    class_name: str = ""
    host: str = ""
    tls_secret: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkPolicies:
    """Who may connect: the pods among themselves, clients to the API, Prometheus to metrics."""

    enabled: bool = True
    clients: tuple[Anything, ...] = ()  # peers; none: anybody in the cluster
    prometheus: tuple[Anything, ...] = ()
    api_server_cidr: str = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Rules:
    """Alerts and recording rules: a PrometheusRule for each file of the chart's files/rules/."""

    enabled: bool = False


@dataclass(frozen=True, slots=True)
class Dashboards:
    """Grafana's: a ConfigMap for each file of the chart's files/dashboards/."""

    enabled: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: {"grafana_dashboard": "1"})
    annotations: Mapping[str, str] = field(default_factory=dict)  # a folder's, for a sidecar


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What Prometheus and Grafana are given."""

    pod_monitor: bool = False
    telemetry: bool = False  # a container more in each pod: its GPUs, gateways and engines
    interval: str = "15s"
    labels: Mapping[str, str] = field(default_factory=dict)  # of the Prometheus Operator's objects
    rules: Rules = field(default_factory=Rules)
    dashboards: Dashboards = field(default_factory=Dashboards)


@dataclass(frozen=True, slots=True)
class LoadTest:
    """A Job that sends load to the fleet; other values start another one."""

    enabled: bool = False
    # Of `r1-serve bench`, without --url, --out and the key.
    args: tuple[str, ...] = ("find-capacity", "--workload=chat", "--ttft-s=2", "--itl-s=0.05")
    key_secret: str = ""  # its key `key`: an API key in clear; empty: the API is open
    claim: str = ""  # a PersistentVolumeClaim for the result; empty: it is in the log alone
    cpu: Quantity = "2"
    memory: Quantity = "2Gi"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Of all pods; the chart binds no rights to it."""

    create: bool = True
    name: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Security:
    """Of all pods. `run_as_user` null leaves the user to the cluster, as OpenShift wants it."""

    run_as_user: int | None = 1000
    fs_group: int | None = 1000


@dataclass(frozen=True, slots=True)
class ChartValues:
    """The whole of values.yaml, beside `spec`."""

    # What the planner says of the fleet; only NOTES reads it.
    plan: Anything
    worker_groups: Mapping[str, WorkerGroup]
    head: Pods
    gateways: Pods
    gpu_hosts: Pods
    globals: Global = field(default_factory=Global)
    name_override: str = ""
    fullname_override: str = ""
    common_labels: Mapping[str, str] = field(default_factory=dict)
    common_annotations: Mapping[str, str] = field(default_factory=dict)
    image: Image = field(default_factory=Image)
    ray: Ray = field(default_factory=Ray)
    network: Network = field(default_factory=Network)
    scheduling: Scheduling = field(default_factory=Scheduling)
    dra: Dra = field(default_factory=Dra)
    weights: Weights = field(default_factory=Weights)
    keys: Keys = field(default_factory=Keys)
    service: Service = field(default_factory=Service)
    http_route: HttpRoute = field(default_factory=HttpRoute)
    ingress: Ingress = field(default_factory=Ingress)
    network_policies: NetworkPolicies = field(default_factory=NetworkPolicies)
    disruption_budgets: bool = True
    monitoring: Monitoring = field(default_factory=Monitoring)
    load_test: LoadTest = field(default_factory=LoadTest)
    service_account: ServiceAccount = field(default_factory=ServiceAccount)
    security: Security = field(default_factory=Security)
    extra_objects: Mapping[str, Anything] = field(default_factory=dict)
