"""URLs that have talked software into dialling what it should not, made systematically."""

from __future__ import annotations

import ipaddress
import urllib.parse


def spellings(address: str) -> list[str]:
    """Ways in which software has been talked into dialling an IPv4 address."""
    four = ipaddress.IPv4Address(address)
    number, octets = int(four), address.split(".")
    hexed = [f"0x{int(octet):02x}" for octet in octets]
    octal = [f"0{int(octet):o}" for octet in octets]
    six = f"{number >> 16:x}:{number & 0xFFFF:x}"
    circled = "".join(chr(0x2460 + int(c) - 1) if c in "123456789" else "⓪" if c == "0" else "。" for c in address)
    return [
        address,
        f"{address}.",
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(hexed),
        ".".join(octal),
        ".".join([*octets[:2], str(number & 0xFFFF)]),
        f"{octets[0]}.{number & 0xFFFFFF}",
        f"{hexed[0]}.{number & 0xFFFFFF}",
        ".".join([*octets[:3], octal[3]]),
        ".".join([*octets[:3], hexed[3]]),
        address.replace(".", "%2e"),
        urllib.parse.quote(address, safe="").replace("1", "%31"),
        address.replace(".", "。"),
        circled,
        "".join(chr(ord(c) - 0x30 + 0xFF10) if c.isdigit() else c for c in address),
        f"[::ffff:{address}]",
        f"[::ffff:{six}]",
        f"[::{address}]",
        f"[64:ff9b::{six}]",
        f"[64:ff9b:1::{six}]",
        f"[2002:{six}::]",
        f"[2001:0:{six}::1]",
        f"[::ffff:0:{address}]",
        f"[0:0:0:0:0:ffff:{six}]",
    ]


def corpus(port: int) -> list[str]:
    hosts = [
        spelling
        for address in (
            "127.0.0.1",
            "169.254.169.254",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "0.0.0.0",
        )
        for spelling in spellings(address)
    ]
    hosts += [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "ip6-localhost",
        "localhost.localdomain",
        "ⓛocalhost",
    ]
    hosts += [
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::1%25lo]",
        "[::1%lo]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[fd00:ec2::254]",
    ]
    hosts += ["[5f00::1]", "[100::1]", "[3fff::1]", "127.127.127.127", "127.0.0.2", "100.100.100.200", "168.63.129.16"]
    hosts += [
        "metadata.google.internal",
        "127.0.0.1.nip.example",
        "rebound.example",
        "a..b",
        "-",
        "a b",
        "a\tb",
        "%6c%6f",
    ]
    urls = [f"http://{host}:{port}/hook" for host in hosts] + [f"https://{host}/hook" for host in hosts[::5]]
    urls += [
        f"http://127.0.0.1:{port}\\@public.example/",
        f"http://public.example\\@127.0.0.1:{port}/",
        f"http://public.example@127.0.0.1:{port}/",
        f"http://user:pass@127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}#@public.example/",
        f"http://127.0.0.1:{port}?@public.example/",
        f"http:127.0.0.1:{port}/",
        f"http:/127.0.0.1:{port}/",
        f"http:///127.0.0.1:{port}/",
        f"//127.0.0.1:{port}/",
        f"127.0.0.1:{port}/",
        f"ftp://127.0.0.1:{port}/",
        "file:///etc/passwd",
        f"gopher://127.0.0.1:{port}/_x",
        "unix:///run/x.sock",
        f"ws://127.0.0.1:{port}/",
        f" http://127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}/\r\nx: y",
        f"http://127.0.0.1:{port}/\x00",
        f"http://[::1]{port}/",
        f"http://127.0.0.1:+{port}/",
        f"http://127.0.0.1:0{port}/",
        f"http://127.0.0.1:{port}:80/",
        f"hTTp://127.0.0.1:{port}/",
        "http://public.example:22/",
        "http://public.example:25/",
        "http://public.example:0/",
        "http://public.example:65536/",
        "http://public.example:-1/",
        "",
        "http://",
        "https:",
        "null",
        f"http://127.0.0.1:{port}/" + "a" * 2048,
        f"http://{'a' * 64}.example:{port}/",
        f"http://{'a.' * 127}example:{port}/",
        "data:text/plain,hi",
        "javascript:alert(1)",
        f"http://public.example,127.0.0.1:{port}/",
        f"http://[127.0.0.1]:{port}/",
    ]
    return urls
