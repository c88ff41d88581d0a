"""Which URLs of an adapter may be asked, and where the token goes."""

import pytest

from gateway.contract.errors import ConfigurationError
from providers._address import Home, UrlRefused

HOSTS = ("files.example.net", ".cdn.test")


def home(base: str = "https://api.example.com/v1/") -> Home:
    return Home(base, provider="acme", result_hosts=HOSTS)


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("/jobs", "https://api.example.com/v1/jobs"),
        ("jobs?x=http://evil.test/", "https://api.example.com/v1/jobs?x=http://evil.test/"),
        ("@evil.test/jobs", "https://api.example.com/v1/@evil.test/jobs"),
        (".evil.test", "https://api.example.com/v1/.evil.test"),
        ("https://api.example.com/v2/jobs", "https://api.example.com/v2/jobs"),
        ("https://API.example.com:443/v2/jobs", "https://api.example.com/v2/jobs"),
    ],
)
def test_the_token_goes_to_the_own_origin(url: str, full: str) -> None:
    assert home().resolve(url) == (full, True)


@pytest.mark.parametrize("url", ["https://files.example.net/a", "https://x.cdn.test/a", "https://a.b.cdn.test:8443/"])
def test_result_hosts_are_asked_without_the_token(url: str) -> None:
    assert home().resolve(url) == (url, False)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1/jobs",  # not the same scheme
        "https://api.example.com:8443/v1/jobs",
        "https://api.example.com.evil.test/",
        "https://api.example.com@evil.test/",
        "https://user:pw@api.example.com/v1/jobs",
        "http://files.example.net/a",  # not https
        "https://cdn.test/",  # ".cdn.test" is for what is under it
        "https://evilcdn.test/",
        "//evil.test/x",
        "\\\\evil.test/x",
        "file:///etc/passwd",
        "https:/evil.test",
        "https://[::1",
    ],
)
def test_every_other_address_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        home().resolve(url)


def test_a_unix_socket_is_a_home_with_or_without_a_path() -> None:
    assert home("unix:/run/model.sock").unix_socket == "/run/model.sock"
    assert home("unix:/run/model.sock").resolve("/jobs") == ("http://localhost/jobs", True)
    assert home("unix:/run/model.sock:/v1").resolve("/jobs") == ("http://localhost/v1/jobs", True)
    with pytest.raises(UrlRefused):  # everything would end in the socket
        home("unix:/run/model.sock").resolve("https://files.example.net/a")


def test_trusted_hosts_name_the_port_only_where_it_is_not_the_usual_one() -> None:
    assert home().trusted_hosts == ("api.example.com", *HOSTS)
    assert home("http://127.0.0.1:9000").trusted_hosts == ("127.0.0.1:9000", *HOSTS)
    assert home("http://[::1]:9000").trusted_hosts == ("[::1]:9000", *HOSTS)
    assert home("unix:/run/model.sock").trusted_hosts == HOSTS


@pytest.mark.parametrize(
    "base",
    ["", "api.example.com", "ftp://x.test", "https://u:p@x.test", "https://x.test?a=b", "unix:relative", "http://"],
)
def test_a_base_that_is_none_is_one_line_that_names_the_provider_and_the_remedy(base: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^provider acme: .+; write https://.+$"):
        home(base)
