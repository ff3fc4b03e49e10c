"""What a run claims to be made with: the state of git, lockfile, installed packages, Python and platform."""
