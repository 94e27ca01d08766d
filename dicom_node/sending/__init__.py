"""The C-STORE and C-ECHO user: finished objects out, outcomes back; knows no model, no queue and no database."""
