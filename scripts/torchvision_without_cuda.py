"""Make the torchvision of PyPI importable beside a PyTorch without CUDA; run with the Python of that environment.

The compiled part of that torchvision needs PyTorch's CUDA libraries. Without them it is skipped, but two functions are
registered all the same for operators that only the compiled part declares, and the import fails. Declaring the two
operators where the compiled part is skipped is enough: all that is pure Python works, such as `torchvision.utils`.
"""

import importlib.util
from pathlib import Path

MARK = "# Added by pulmozoo:"
DECLARATIONS = f"""

{MARK} operators whose shape functions are registered although the compiled part is missing
if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{{_name}}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def main() -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise SystemExit("torchvision is not installed: install it first")
    path = Path(spec.origin).with_name("extension.py")
    text = path.read_text(encoding="utf-8")
    if MARK not in text:
        path.write_text(text + DECLARATIONS, encoding="utf-8")


if __name__ == "__main__":
    main()
