from trio_ws import exceptions

package = "trio_ws"


def tree(cls: type[BaseException], depth: int = 0) -> None:
    bases = [base for base in cls.__bases__ if not base.__module__.startswith(package)]
    names = [
        base.__name__ if base.__module__ == "builtins" else f"trio.{base.__name__}"
        for base in bases
    ]
    print("    " * depth + cls.__name__ + (f" ({', '.join(names)})" if names else ""))
    for child in sorted(cls.__subclasses__(), key=lambda child: child.__name__):
        if child.__name__ in exceptions.__all__:
            tree(child, depth + 1)


tree(exceptions.WebSocketException)
