"""Network architectures that a model card can name; each module holds one."""
