"""The quickstart: yes/no questions about real digits become working adapters."""
