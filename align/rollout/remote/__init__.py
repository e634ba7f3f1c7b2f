"""Engines in other processes: `RemoteEngine` (engine.py) drives an `EngineHost` (host.py) over a transport that carries bytes."""
