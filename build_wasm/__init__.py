"""WebGemma's build half: a Gemma 4 checkpoint goes in, a folder that a web page can load comes out."""

__version__ = "0.1.0"
