"""Which hosts are dialled without the guard when a provider's files are fetched: those that ops wrote."""

from __future__ import annotations

import pytest

from gateway.config.model import Provider
from gateway.link import _direct_hosts
from gateway.plugins import load_adapter


@pytest.mark.parametrize(
    ("word", "section", "direct"),
    [
        ("replicate", Provider(), ()),
        ("bfl", Provider(), ()),
        ("replicate", Provider(base_url="http://10.0.0.5:9000/v1"), ("10.0.0.5:9000",)),
        ("fal", Provider(base_url="http://a:1", sites={"sync": "http://b:2"}), ("a:1", "b:2")),
        ("fal", Provider(sites={"rest": "http://b:2"}), ("b:2",)),
        ("cog", Provider(), ("127.0.0.1:5000",)),
        ("cog", Provider(options={"result_hosts": ["minio.internal"]}), ("127.0.0.1:5000", "minio.internal")),
        ("replicate", Provider(base_url="unix:/run/model.sock"), ()),
    ],
)
def test_what_ops_wrote_is_dialled_as_it_is(word: str, section: Provider, direct: tuple[str, ...]) -> None:
    assert _direct_hosts(section, load_adapter(word)) == direct
