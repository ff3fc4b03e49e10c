"""The client of the services for Python programs: `Client(connection())`."""

from periplus.sdk.client.call_error import CallError
from periplus.sdk.client.calls import CallSettings, Client
from periplus.sdk.client.connections import Connection, NotConnectedError, connection

__all__ = ["CallError", "CallSettings", "Client", "Connection", "NotConnectedError", "connection"]
