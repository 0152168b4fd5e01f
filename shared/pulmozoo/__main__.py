"""``python -m pulmozoo`` is the ``pulmozoo`` command."""

from .cli import main

if __name__ == "__main__":
    main()
