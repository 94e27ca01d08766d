"""The C-STORE and C-ECHO provider: associations in, instances out; knows no model, no pixel and no database."""
