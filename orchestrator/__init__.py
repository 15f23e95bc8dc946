"""r1-serve: serves DeepSeek-R1 from an operator's own GPU nodes."""

__version__ = "0.1.0"
