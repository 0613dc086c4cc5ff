"""Simulated readers that push JSON: fields, order and forms are those of captured messages, where there are any."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import secrets
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from simulators.readers.observation import RSSI_UNKNOWN, Observation
from sync.mqtt import BrokerError, MqttConnection, MqttSettings, connect

Clock = Callable[[], int]
Body = dict[str, Any]
MAC = "00:16:25:14:2F:F4"
HOSTNAME = "impinj-14-2f-f4"
SERIAL = "37020340091"
STREAM_PATH = "/api/v1/data/stream"
KEEPALIVE_S = 30.0
GATHER_S = 0.05
GENERIC = {"reads": "/tags", "epc": "/id", "antenna": "/ant", "rssi": "/rssi", "time": "/ts"}
"""The `mapping` for `generic`."""
WAITING_MAX = 10_000
"""Messages that wait for a receiver that is away or slow; more are lost."""


def messages(profile: str, seen: list[Observation], first: int) -> list[Body]:
    """Return the messages about some observations; `first`: the reader's number of the first."""
    if profile == "impinj":
        return [_impinj(each) for each in seen]
    if profile == "zebra":
        return [_zebra(each, first + i) for i, each in enumerate(seen)]
    if profile == "keonn":
        reads = [
            {
                "epc": each.epc.hex().upper(),
                "antenna": str(each.port),
                **_text_rssi(each),
                "ts": str(each.time_us // 1000),
            }
            for each in seen
        ]
        return [{"devid": "AdvanReader-01", "devmac": MAC.lower(), "reads": reads}]
    if profile == "generic":
        tags = [
            {"id": each.epc.hex().upper(), "ant": each.port, "ts": each.time_us // 1000, **_whole_rssi(each, "rssi")}
            for each in seen
        ]
        return [{"tags": tags}]
    reads = [
        {
            "antennaPort": each.port,
            "epc": each.epc.hex().upper(),
            "firstSeenTimestamp": _iso(each.time_us, "Z"),
            **_whole_rssi(each, "peakRssi"),
            "isHeartBeat": False,
        }
        for each in seen
    ]
    return [{"reader_name": "SpeedwayR-14-2F-F4", "mac_address": MAC, "tag_reads": reads}]


def json_reader(clock: Clock, profile: str, address: str) -> JsonReader:
    """Return a reader for an address as in the store file: it listens itself (http, ws), posts to the gateway (listen),
    or publishes (mqtt)."""
    scheme, _, rest = address.partition("://")
    if scheme in ("http", "ws"):
        return ServingReader(clock, profile, scheme, urlsplit(address).port or 0)
    if scheme == "listen":
        host = rest.replace("0.0.0.0", "127.0.0.1")
        return PostingReader(clock, profile, address, f"http://{host}")
    if scheme == "mqtt":
        return PublishingReader(clock, profile, address)
    raise ValueError(f"no reader with the address {address} can be simulated")


class JsonReader:
    """What all have in common: observations become messages, which are sent together every GATHER_S."""

    def __init__(self, clock: Clock, profile: str, address: str) -> None:
        self.profile, self.address, self.clock = profile, address, clock
        self.number = 1
        self.running = True
        self._seen: list[Observation] = []
        self._waiting: list[bytes] = []
        self._stirred = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start; returns the address for the store file."""
        self._sending = asyncio.create_task(self._run())
        return self.address

    async def stop(self) -> None:
        """Disconnect."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
            self._sending = None

    def push(self, observations: Iterable[Observation]) -> None:
        """Take observations; they are lost unless an inventory runs."""
        if self.running:
            self._seen += observations
            self._stirred.set()

    def say(self, body: bytes) -> None:
        """Send anything."""
        self._waiting.append(body)
        self._stirred.set()

    async def _run(self) -> None:
        while True:
            await self._stirred.wait()
            await asyncio.sleep(GATHER_S)
            self._stirred.clear()
            seen, self._seen = self._seen, []
            if seen:
                made = messages(self.profile, seen, self.number)
                self.number += len(seen)
                self._waiting += [json.dumps(body, separators=(",", ":")).encode() for body in made]
            del self._waiting[:-WAITING_MAX]
            while self._waiting:
                bodies, self._waiting = self._waiting, []
                try:
                    await self.send(bodies)
                except (aiohttp.ClientError, BrokerError, OSError, TimeoutError):
                    self._waiting = (bodies + self._waiting)[-WAITING_MAX:]
                    await asyncio.sleep(0.2)

    async def send(self, bodies: list[bytes]) -> None:
        """Send messages; may raise what the libraries raise, and is then asked again."""
        raise NotImplementedError


class ServingReader(JsonReader):
    """Reader that clients connect to: an HTTP stream with Impinj's REST interface, or a WebSocket."""

    def __init__(self, clock: Clock, profile: str, scheme: str, port: int) -> None:
        super().__init__(clock, profile, "")
        self.login: tuple[str, str] | None = None
        """Username and password that it asks for."""
        self.running = profile != "impinj"
        self.port = port
        self.started: list[str] = []
        """Presets that clients have started."""
        self._scheme = scheme
        self._queues: set[asyncio.Queue[bytes]] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Start listening; after `stop`, at the same address."""
        app = web.Application()
        app.router.add_get("/api/v1/status", self._status)
        app.router.add_post("/api/v1/profiles/inventory/presets/{preset}/start", self._start_preset)
        app.router.add_post("/api/v1/profiles/stop", self._stop_preset)
        app.router.add_get(STREAM_PATH, self._stream)
        app.router.add_get("/ws", self._socket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        path = "/ws" if self._scheme == "ws" else "" if self.profile == "impinj" else STREAM_PATH
        self.address = f"{self._scheme}://127.0.0.1:{self.port}{path}"
        return await super().start()

    async def stop(self) -> None:
        """Disconnect all clients and stop listening."""
        await super().stop()
        self._queues.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def send(self, bodies: list[bytes]) -> None:
        """Send to all clients; without any, messages are lost."""
        separator = b"\r\n" if self.profile == "impinj" else b""
        for queue in self._queues:
            queue.put_nowait(b"".join(body + separator for body in bodies))

    def end_inventory(self) -> None:
        """End the inventory, as another program would."""
        self.running = False
        self.say(_event(self.clock(), "inventoryStatus", {"inventoryStatus": "idle"}))

    def _admitted(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "")
        if self.login is not None and given != _basic(*self.login):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="reader"'})

    async def _status(self, request: web.Request) -> web.Response:
        self._admitted(request)
        status = "running" if self.running else "idle"
        return web.json_response({"status": status, "time": _iso(self.clock(), "Z"), "serialNumber": SERIAL})

    async def _start_preset(self, request: web.Request) -> web.Response:
        self._admitted(request)
        if request.match_info["preset"] not in ("default", "shop"):
            raise web.HTTPNotFound(text='{"message":"no such preset"}')
        self.started.append(request.match_info["preset"])
        self.running = True
        self.say(_event(self.clock(), "inventoryStatus", {"inventoryStatus": "running"}))
        return web.Response(status=204)

    async def _stop_preset(self, request: web.Request) -> web.Response:
        self._admitted(request)
        self.running = False
        return web.Response(status=204)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self._admitted(request)
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        await self._serve(answer.write)
        return answer

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self._admitted(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)

        async def send(data: bytes) -> None:
            await socket.send_str(data.decode())

        serving = asyncio.create_task(self._serve(send))
        try:
            async for _ in socket:
                pass
        finally:
            serving.cancel()
        return socket

    async def _serve(self, write: Callable[[bytes], Any]) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)
        self._queues.add(queue)
        try:
            with suppress(ConnectionError):
                while True:
                    try:
                        data = await asyncio.wait_for(queue.get(), KEEPALIVE_S)
                    except TimeoutError:
                        data = b"\r\n"
                    await write(data)
        finally:
            self._queues.discard(queue)


class PostingReader(JsonReader):
    """Reader that sends to the gateway; what is not taken is sent again."""

    def __init__(self, clock: Clock, profile: str, address: str, url: str) -> None:
        super().__init__(clock, profile, address)
        self.url = url
        self.login: tuple[str, str] | None = None
        self._http: aiohttp.ClientSession | None = None

    async def stop(self) -> None:
        """Disconnect."""
        await super().stop()
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def send(self, bodies: list[bytes]) -> None:
        """Post messages, several as a list."""
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        data = bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]"
        login = {"Authorization": _basic(*self.login)} if self.login is not None else {}
        async with self._http.post(self.url, data=data, headers=login) as answer:
            answer.raise_for_status()


class PublishingReader(JsonReader):
    """Reader that publishes to a broker."""

    def __init__(self, clock: Clock, profile: str, address: str) -> None:
        super().__init__(clock, profile, address)
        self._broker = MqttSettings.from_url(address, f"simulated-{secrets.token_hex(6)}")
        self._topic = urlsplit(address).path.lstrip("/") or "reads"
        self._connection: MqttConnection | None = None
        self._open = AsyncExitStack()

    async def stop(self) -> None:
        """Disconnect."""
        await super().stop()
        await self._close()

    async def send(self, bodies: list[bytes]) -> None:
        """Publish each message."""
        try:
            if self._connection is None:
                self._connection = await self._open.enter_async_context(connect(self._broker))
            for body in bodies:
                await self._connection.publish(self._topic, body)
        except BrokerError:
            await self._close()
            raise

    async def _close(self) -> None:
        self._connection = None
        await self._open.aclose()


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _impinj(seen: Observation) -> Body:
    return {
        "timestamp": _iso(seen.time_us, "000Z"),
        "hostname": HOSTNAME,
        "eventType": "tagInventory",
        "tagInventoryEvent": {
            "epc": base64.urlsafe_b64encode(seen.epc).decode(),
            "antennaPort": seen.port,
            **({} if seen.rssi_cdbm == RSSI_UNKNOWN else {"peakRssiCdbm": seen.rssi_cdbm}),
            "frequency": 921625,
            "transmitPowerCdbm": 1000,
            "lastSeenTime": _iso(seen.time_us, "Z"),
            "phaseAngle": 208.82,
        },
    }


def _zebra(seen: Observation, number: int) -> Body:
    return {
        "data": {
            "MAC": MAC,
            "antenna": seen.port,
            "eventNum": number,
            "format": "epc",
            "idHex": seen.epc.hex(),
            **_whole_rssi(seen, "peakRssi"),
            "reads": seen.count,
        },
        "timestamp": _iso(seen.time_us, "+0000", "milliseconds"),
        "type": "CUSTOM",
    }


def _whole_rssi(seen: Observation, key: str) -> Body:
    return {} if seen.rssi_cdbm == RSSI_UNKNOWN else {key: round(seen.rssi_cdbm / 100)}


def _text_rssi(seen: Observation) -> Body:
    return {} if seen.rssi_cdbm == RSSI_UNKNOWN else {"rssi": str(round(seen.rssi_cdbm / 100))}


def _event(time_us: int, kind: str, content: Body) -> bytes:
    return json.dumps({"timestamp": _iso(time_us, "000Z"), "eventType": kind, f"{kind}Event": content}).encode()


def _iso(time_us: int, zone: str, step: str = "microseconds") -> str:
    at = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=time_us)
    return at.replace(tzinfo=None).isoformat(timespec=step) + zone
