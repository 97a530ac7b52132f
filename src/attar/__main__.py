"""`python -m attar` is `attar`; `torchrun -m attar run recipe.yaml` starts one in each process."""

from attar.cli import main

if __name__ == "__main__":
    main()
