"""Answer over HTTP in the form of OpenAI's API, so that its clients work unchanged.

    rnagpt serve --demo
    curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{"model": "demo",
      "messages": [{"role": "user", "content": [{"type": "rna", "rna": "GCGGAUUUAGC..."},
                                                {"type": "text", "text": "What type of RNA is this?"}]}]}'

reads   a checkpoint (a folder written by RNA-GPT's training, or a Hub id)
writes  nothing; one line to standard error when it is ready

Routes: POST /v1/chat/completions (also streamed), GET /v1/models, /health, /metrics. An RNA is a content part of type
"rna". Answers are greedy unless a temperature is given. With "confidence": true
how far to trust the answer comes with it.
When more requests wait than --max-waiting, the next one gets 429 and Retry-After. It listens on this machine only; to
let others in, set --host and an API key. SIGTERM or Ctrl-C: what is under way is finished first.
"""

import argparse
import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path

from rnagpt.checkpoints.opening import DEMO_NOTE, add_checkpoint, chosen_checkpoint, load, share_processors
from rnagpt_core.errors import UserError

KEY_VARIABLE = "RNAGPT_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--name", help="the model's name in requests (default: demo, or the checkpoint's last part)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one (default: 8000)")
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        type=Path,
        help=f"file with the key that clients must send (default: ${KEY_VARIABLE}, if set)",
    )
    parser.add_argument("--max-answers", type=int, default=16, metavar="N", help="answered together (default: 16)")
    parser.add_argument("--max-waiting", type=int, default=64, metavar="N", help="waiting beyond these (default: 64)")
    parser.add_argument(
        "--cache-mb",
        type=int,
        default=1024,
        metavar="N",
        help="memory for keys and values kept between requests (default: 1024)",
    )
    parser.add_argument("--timeout", type=float, default=120, metavar="S", help="seconds per request (default: 120)")
    parser.add_argument(
        "--drain",
        type=int,
        default=30,
        metavar="S",
        help="on SIGTERM, seconds to finish what is under way (default: 30)",
    )


def run(args: argparse.Namespace) -> int:
    """Check what was given, load the checkpoint, serve until told to end."""
    share_processors()
    checkpoint = chosen_checkpoint(args)
    check_switches(args)
    api_key = chosen_key(args)
    if api_key is None and not is_loopback(args.host):
        raise UserError(
            f"--host {args.host} lets other machines in: set ${KEY_VARIABLE} or --api-key-file, or leave --host out"
        )
    check_port(args.host, args.port)
    import uvicorn

    from rnagpt.serving.app import Limits, build_app
    from rnagpt.serving.engine import Engine

    name = args.name or ("demo" if args.demo else Path(checkpoint).resolve().name)
    print(f"loading {args.checkpoint or 'the demo'} ...", file=sys.stderr, flush=True)
    loaded = load(checkpoint, trust_remote_code=args.trust_remote_code)
    engine = Engine(*loaded, max_answers=args.max_answers, cached_bytes=args.cache_mb * 1_000_000)
    if args.demo:
        print(DEMO_NOTE, file=sys.stderr, flush=True)
    hosts = ("*",) if args.host in ("0.0.0.0", "::") else ("127.0.0.1", "localhost", args.host)
    app = build_app(engine, name, Limits(max_waiting=args.max_waiting, timeout=args.timeout), api_key, hosts)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=args.host,
            port=args.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=args.drain,
            # longer than clients keep an idle connection, or they would write to one that is just being closed
            timeout_keep_alive=75,
        )
    )
    serve(server, name)
    return 0


def serve(server, name: str) -> None:
    """Listen, say where, and serve until a signal; uvicorn finishes what is under way and raises the signal again."""
    startup = server.startup

    async def startup_and_say(sockets=None) -> None:
        await startup(sockets=sockets)
        if server.started:
            host, port = server.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"serving {name} at http://{shown}:{port}/v1 (Ctrl-C ends)", file=sys.stderr, flush=True)

    server.startup = startup_and_say
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the one raised again has done its work
    server.run()
    if not server.started:
        raise UserError(f"port {server.config.port} of {server.config.host} cannot be used: give another --port")


def check_switches(args: argparse.Namespace) -> None:
    """UserError for switches out of range."""
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port must be 0 to 65535, got {args.port}")
    if args.max_answers < 1 or args.max_waiting < 0:
        raise UserError("--max-answers must be at least 1 and --max-waiting at least 0")
    if args.cache_mb < 0:
        raise UserError("--cache-mb must be 0, for none, or above")
    if not args.timeout > 0 or args.drain < 0:
        raise UserError("--timeout must be above 0 and --drain at least 0")


def check_port(host: str, port: int) -> None:
    """UserError where nothing can listen, told before the checkpoint loads; port 0 is any free one."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            probe.bind(address)
    except socket.gaierror:
        raise UserError(f"there is no host {host}: --host is a name or address of this machine") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"port {port} of {host} cannot be used ({reason}): give another --port") from None


def chosen_key(args: argparse.Namespace) -> str | None:
    """The API key of --api-key-file or of the environment; never an argument, which other users could see."""
    if args.api_key_file is None:
        return os.environ.get(KEY_VARIABLE) or None
    key = args.api_key_file.read_text(encoding="utf-8").strip()
    if not key:
        raise UserError(f"{args.api_key_file} is empty: expected an API key on one line")
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
