"""The stretch between spool and outbox: `study` computes a study's answer, `rows` maps values to rows and back."""

#: Raised whenever the same inputs may lead to other results; part of every result's UID.
PIPELINE_VERSION = "1"
