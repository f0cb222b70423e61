"""Two verdicts on every response, each in a process that can be killed."""
