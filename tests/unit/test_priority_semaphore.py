"""The order in which waiting callers get their turn."""

import asyncio

from orchestrator.aio import PrioritySemaphore

SECONDS = 5


async def test_urgent_callers_go_first_and_others_in_order() -> None:
    """Two run at a time; the others run by urgency, then in the order of their calls."""
    turns, entered, doors = PrioritySemaphore(2), asyncio.Queue[str](), dict[str, asyncio.Event]()

    async def come(name: str, *, urgent: bool) -> None:
        doors[name] = asyncio.Event()
        async with turns.slot(urgent=urgent):
            entered.put_nowait(name)
            await doors[name].wait()

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        for name, urgent in (("a", False), ("b", False), ("c", False), ("d", True), ("e", False), ("f", True)):
            tasks.create_task(come(name, urgent=urgent))
        order = [await entered.get(), await entered.get()]
        for name in order:  # it grows
            doors[name].set()
            if len(order) < len(doors):
                order.append(await entered.get())
    assert order == ["a", "b", "d", "f", "c", "e"]


async def test_a_task_that_stops_waiting_takes_no_turn() -> None:
    """A caller that is cancelled loses no turn for the others, even just as its own begins."""
    turns, order = PrioritySemaphore(1), list[str]()

    async def come(name: str, until: asyncio.Event) -> None:
        async with turns.slot(urgent=False):
            order.append(name)
            await until.wait()

    done, gate = asyncio.Event(), asyncio.Event()
    done.set()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(come("first", gate))
        early, late, last = (tasks.create_task(come(name, done)) for name in ("early", "late", "last"))
        await asyncio.sleep(0)
        early.cancel()
        gate.set()
        await asyncio.sleep(0)
        assert (first.done(), late.done()) == (True, False)
        late.cancel()  # it has its turn, and has not taken it yet
    assert (order, late.cancelled(), last.done()) == (["first", "last"], True, True)
