"""The token channel over real sockets: cut, stalled, flooded, lied to."""

import asyncio
from dataclasses import replace

import pytest
from msgspec import structs
from typing_extensions import override

from orchestrator.engines import ChannelState, End, FakeEngine, FakeEngineSpec, Finish, RankChannel
from orchestrator.routing import Credit
from tests.unit.engines.channel_world import (
    LIMITS,
    NotingSink,
    Proxy,
    Puppet,
    World,
    play,
    request,
    until,
)


def _submit(channel: RankChannel, *names: str) -> list[NotingSink]:
    sinks = [NotingSink() for _ in names]
    for name, sink in zip(names, sinks, strict=True):
        channel.submit(request(name), sink)
    return sinks


def test_a_cut_in_mid_frame_ends_all_lost_aborts_all_and_reconnects() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with World.around(puppet) as world, Proxy(world.server.address).serving() as proxy:
            states: list[ChannelState] = []
            channel = world.channel(proxy.address, on_state=lambda c: states.append(c.state))
            await until(lambda: channel.state is ChannelState.OPEN)
            sinks = _submit(channel, "a", "b", "c")
            await until(lambda: len(puppet.running) == 3)
            proxy.cut_after_bytes = 100
            for request_id in list(puppet.running):
                puppet.tokens(request_id, list(range(200)))
            ends = [await sink.ended() for sink in sinks]
            assert {end.finish for end in ends} == {Finish.LOST}
            assert [sink.ids for sink in sinks] == [[], [], []]
            await until(lambda: len(puppet.aborted) == 3)
            assert not puppet.running
            await until(lambda: channel.state is ChannelState.OPEN)
            assert states == [ChannelState.OPEN, ChannelState.LOST, ChannelState.OPEN]
            (again,) = _submit(channel, "a")
            await until(lambda: len(puppet.running) == 1)
            puppet.tokens(next(iter(puppet.running)), [7])
            puppet.end(next(iter(puppet.running)), End(Finish.STOP))
            assert await again.ended() == End(Finish.STOP)
            assert again.ids == [7]

    play(scene())


def test_a_stalled_gateway_costs_no_more_than_its_tokens_and_gets_them_all_later() -> None:
    async def scene() -> None:
        puppet = Puppet()
        patient = replace(LIMITS, lost_after_s=8.0)
        async with (
            World.around(puppet, patient) as world,
            Proxy(world.server.address).serving() as proxy,
        ):
            channel = await world.opened(proxy.address, limits=patient)
            sinks = _submit(channel, "a", "b")
            await until(lambda: len(puppet.running) == 2)
            proxy.flowing.clear()
            sent: list[int] = []
            while world.server.unsent_tokens < 100_000:  # the sockets' own buffers are full
                part = list(range(len(sent), len(sent) + 20_000))
                sent += part
                for request_id in list(puppet.running):
                    puppet.tokens(request_id, part)
                await asyncio.sleep(0)
            for request_id in list(puppet.running):
                puppet.end(request_id, End(Finish.LENGTH))
            proxy.flowing.set()
            for sink in sinks:
                assert await sink.ended() == End(Finish.LENGTH)
                assert sink.ids == sent
            assert world.server.unsent_tokens == 0

    play(scene())


def test_a_gateway_stalled_for_too_long_is_cut_and_its_requests_aborted() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with World.around(puppet) as world, Proxy(world.server.address).serving() as proxy:
            channel = await world.opened(proxy.address)
            (sink,) = _submit(channel, "a")
            await until(lambda: len(puppet.running) == 1)
            proxy.flowing.clear()
            (request_id,) = puppet.running
            while puppet.running:
                puppet.tokens(request_id, list(range(10_000)))
                await asyncio.sleep(0.001)
            assert puppet.aborted == [request_id]
            assert (await sink.ended()).finish is Finish.LOST

    play(scene())


def test_a_silent_engine_is_lost() -> None:
    async def scene() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.transport.abort()

        async with World.around(Puppet()) as world:
            mute = await asyncio.start_server(accept, "127.0.0.1", 0)
            host, port = mute.sockets[0].getsockname()[:2]
            channel = world.channel(f"{host}:{port}", limits=replace(LIMITS, connect_s=0.2))
            await until(lambda: channel.state is ChannelState.LOST)
            assert channel.cause == "the engine did not say welcome within 0.2 s"
            mute.close()

    play(scene())


def test_a_flood_of_submits_ends_each_once_and_serves_what_there_is_credit_for() -> None:
    async def scene() -> None:
        limits = replace(LIMITS, lost_after_s=8.0, max_requests=500)
        engine = FakeEngine(FakeEngineSpec(step_s=0, prefill_s_per_token=0, max_running=200))
        async with World.around(engine, limits) as world:
            channel = await world.opened(limits=limits)
            sinks = _submit(channel, *(f"r{number}" for number in range(3000)))
            assert channel.open_requests == 500
            ends = [await sink.ended() for sink in sinks]
            assert [end.finish for end in ends] == [Finish.LENGTH] * 500 + [Finish.FAILED] * 2500
            assert ends[500].cause == "the channel's 500 requests are all in use"
            assert {len(sink.ids) for sink in sinks[:500]} == {10}
            assert (channel.open_requests, world.server.open_requests) == (0, 0)

    play(scene())


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02\x91\x63", b"\xff" * 5000]
)
def test_malformed_bytes_cut_their_connection_and_no_other(data: bytes) -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with World.around(puppet) as world, Proxy(world.server.address).serving() as proxy:
            bystander = await world.opened()
            channel = await world.opened(proxy.address)
            spared, hit = _submit(bystander, "a") + _submit(channel, "a")
            await until(lambda: len(puppet.running) == 2)
            proxy.inject(data)
            assert (await hit.ended()).finish is Finish.LOST
            await until(lambda: len(puppet.aborted) == 1)
            (request_id,) = puppet.running
            puppet.end(request_id, End(Finish.STOP))
            assert (await spared.ended()).finish is Finish.STOP
            await until(lambda: channel.state is ChannelState.OPEN)

    play(scene())


def test_an_engine_with_another_id_is_refused_until_the_right_one_is_there() -> None:
    async def scene() -> None:
        async with World.around(Puppet()) as world:
            stranger = world.channel(engine_id="before the restart")
            await until(lambda: stranger.state is ChannelState.LOST)
            assert stranger.cause == "this is engine engine, not before the restart"
            (sink,) = _submit(stranger, "a")
            assert sink.end is None  # never from inside submit
            assert await sink.ended() == End(Finish.LOST, cause=stranger.cause)
            assert (await world.opened()).state is ChannelState.OPEN

    play(scene())


def test_a_channel_finds_its_engine_again_after_a_restart_on_the_same_port() -> None:
    async def scene() -> None:
        async with World.around(Puppet()) as world:
            async with World.around(Puppet()) as first:
                address = first.server.address
                channel = world.channel(address)
                await until(lambda: channel.state is ChannelState.OPEN)
            await until(lambda: channel.state is ChannelState.LOST)
            async with World.around(Puppet(), port=int(address.rpartition(":")[2])):
                await until(lambda: channel.state is ChannelState.OPEN)
                channel.close()

    play(scene())


def test_two_gateways_with_the_same_request_id_do_not_meet() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with World.around(puppet) as world:
            channels = [await world.opened(), await world.opened()]
            (one,), (other,) = _submit(channels[0], "same"), _submit(channels[1], "same")
            await until(lambda: len(puppet.running) == 2)
            channels[0].cancel("same")
            assert (await one.ended()).finish is Finish.ABORTED
            assert len(puppet.running) == 1
            puppet.end(next(iter(puppet.running)), End(Finish.STOP))
            assert (await other.ended()).finish is Finish.STOP

    play(scene())


def test_each_gateway_is_told_what_the_others_have_in_flight() -> None:
    async def scene() -> None:
        puppet = Puppet()
        patient = replace(LIMITS, heartbeat_s=5.0, lost_after_s=30.0)
        async with World.around(puppet, patient) as world:
            one, other = [await world.opened(limits=patient) for _ in range(2)]
            for name, work_s in (("a", 2.0), ("b", 0.5)):
                one.submit(structs.replace(request(name), work_s=work_s), NotingSink())
            await until(lambda: other.others == Credit(2, 2.5))
            first = min(puppet.running)
            puppet.tokens(first, [4])
            puppet.tokens(first, [5])
            await until(lambda: other.others == Credit(2, 0.5))
            puppet.end(first, End(Finish.STOP))
            one.cancel("b")
            await until(lambda: other.others == Credit(0, 0.0))
            assert one.others == Credit(0, 0.0)
            other.submit(structs.replace(request("c"), work_s=1.0), NotingSink())
            await until(lambda: one.others == Credit(1, 1.0))
            other.close()
            await until(lambda: one.others == Credit(0, 0.0))

    play(scene())


def test_an_engine_that_dies_silently_ends_all_failed_and_the_watch_says_why() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with World.around(puppet) as world:
            channel = await world.opened()
            sinks = _submit(channel, "a", "b")
            await until(lambda: len(puppet.running) == 2)
            puppet.tokens(next(iter(puppet.running)), [4])
            puppet.dead = "out of memory"
            for sink in sinks:
                assert await sink.ended() == End(Finish.FAILED, cause="out of memory", died=True)
            assert sinks[0].ids == [4]
            await until(lambda: channel.state is ChannelState.LOST)

    play(scene())


def test_cancelling_the_run_ends_what_is_open_and_the_engine_frees_it() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with World.around(puppet) as world:
            channel = RankChannel(world.server.address, "engine", gateway_id="g", limits=LIMITS)
            async with asyncio.TaskGroup() as group:
                running = group.create_task(channel.run())
                await until(lambda: channel.state is ChannelState.OPEN)
                (sink,) = _submit(channel, "a")
                await until(lambda: len(puppet.running) == 1)
                running.cancel()
            assert sink.end == End(Finish.LOST, cause="the channel was closed")
            assert channel.state is ChannelState.LOST
            await until(lambda: len(puppet.aborted) == 1)

    play(scene())


def test_a_sink_that_raises_costs_its_connection_and_loses_no_end() -> None:
    async def scene() -> None:
        class Broken(NotingSink):
            @override
            def on_tokens(self, ids: list[int], logprobs: object = ()) -> None:
                raise AssertionError("a bug in the gateway")

        reported: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(str(context.get("exception")))
        )
        puppet = Puppet()
        async with World.around(puppet) as world:
            channel = await world.opened()
            broken = Broken()
            channel.submit(request("broken"), broken)
            (sink,) = _submit(channel, "a")
            await until(lambda: len(puppet.running) == 2)
            puppet.tokens(next(iter(puppet.running)), [1])
            assert (await sink.ended()).finish is Finish.LOST
            assert (await broken.ended()).finish is Finish.LOST
            assert reported == ["a bug in the gateway"]
            await until(lambda: channel.state is ChannelState.OPEN)

    play(scene())


def test_heartbeats_keep_an_idle_channel_open_and_its_load_fresh() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with World.around(Puppet()) as world:
            channel = await world.opened()
            opened_at = loop.time()
            await until(lambda: loop.time() > opened_at + 2 * LIMITS.lost_after_s)
            assert channel.state is ChannelState.OPEN
            assert channel.load is not None
            assert channel.load_age(loop.time()) < LIMITS.lost_after_s

    play(scene())
