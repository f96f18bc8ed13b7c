"""The memory runtime: how memories are loaded, embedded, stored, searched and cached."""
