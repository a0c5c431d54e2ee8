"""todo, clearTodo and attemptCompletion: the todo list of one Expert."""

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.runtime.tools import define

TODO = define(
    "todo",
    "Keep a list of what is to be done: add items, mark items done, and see the list.",  # words: a tool definition
    newTodos={"type": "array", "items": {"type": "string"}, "description": "Titles of items to add."},
    completedTodos={"type": "array", "items": {"type": "number"}, "description": "Ids of items that are done."},
)
CLEAR_TODO = define("clearTodo", "Forget all items of the todo list.")
ATTEMPT_COMPLETION = define(
    "attemptCompletion",
    "Say that the work is finished. Call it alone. It answers with the todo items that are still open, if any.",
)


class TodoList:
    """Items with ids from 0; completed items stay completed (docs/reference/perstack.md#built-in-tools).

    Args:
        items: the items of an earlier Run of the same Expert, as in `items`.
        items: what an earlier Run of the same Expert left, as `items` gives it.
    """

    def __init__(self, items: Iterable[Mapping[str, Any]] = ()) -> None:
        self._items = [dict(item) for item in items]

    @property
    def items(self) -> list[dict[str, Any]]:
        """All items: `id`, `title`, `completed`."""
        return [dict(item) for item in self._items]

    def todo(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add items, complete items, and return the list; unknown ids are ignored."""
        for title in args.get("newTodos") or ():
            self._items.append({"id": len(self._items), "title": title, "completed": False})
        done = set(args.get("completedTodos") or ())
        for item in self._items:
            item["completed"] = item["completed"] or item["id"] in done
        return {"todos": self.items}

    def clear(self) -> Mapping[str, Any]:
        """Remove all items; ids start at 0 again."""
        self._items.clear()
        return {"todos": []}

    def attempt_completion(self) -> Mapping[str, Any]:
        """Return the open items, or nothing if the Expert may finish."""
        remaining = [item for item in self.items if not item["completed"]]
        return {"remainingTodos": remaining} if remaining else {}
