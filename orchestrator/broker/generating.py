"""A model call of a Sandbox, from its frame to the answer: pieces of the reply go out as they come."""

from orchestrator.broker.claims import BrokenRuleError
from orchestrator.broker.gateway import Gateway
from orchestrator.broker.stream import Pieces, Stream
from orchestrator.wire import link
from orchestrator.wire.generation import Reply


async def generate(stream: Stream, call: link.Generate, gateway: Gateway) -> link.Generated | link.Failed:
    """Have the model called, and give what answers `call`.

    Raises:
        BrokenRuleError: another call is in flight, and a Run makes one at a time.
    """
    if gateway.busy_with not in (None, call.request.id):
        message = f"model call {call.request.id!r} came while {gateway.busy_with!r} was not answered yet"
        raise BrokenRuleError(message)
    pieces = Pieces()
    outcome = gateway.call(call.request, pieces.add)
    outcome.add_done_callback(pieces.end)
    async for kind, text in pieces:
        await stream.send(link.Delta(id=call.id, kind=kind, text=text))
    answer = await outcome
    if isinstance(answer, Reply):
        return link.Generated(id=call.id, reply=answer)
    return link.Failed(id=call.id, failure=answer)
