"""The stretch between spool and outbox: `study` computes a study's answer, `rows` maps values to rows and back."""
