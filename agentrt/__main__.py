"""Let `python -m agentrt` be the command line."""

from agentrt.cli import main

if __name__ == "__main__":
    main()
