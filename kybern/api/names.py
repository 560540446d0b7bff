"""The rules for names, label keys, label values and the like: each function returns what is wrong, or nothing.

The rules are those of Kubernetes (apimachinery's validation): RFC 1123 and RFC 1035 names, qualified names, IANA
service names. Names repeat, so the answers are cached.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache, wraps

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"

_label_re = re.compile(_LABEL)
_subdomain_re = re.compile(_SUBDOMAIN)
_label_1035_re = re.compile(_LABEL_1035)
_qualified_re = re.compile(_QUALIFIED)
_label_value_re = re.compile(f"({_QUALIFIED})?")
_config_key_re = re.compile(_CONFIG_KEY)
_percent_re = re.compile(_PERCENT)
_environment_re = re.compile(r"[\x20-\x3c\x3e-\x7e]+")
_port_name_re = re.compile(r"[-a-z0-9]+")

LABEL_LENGTH = 63
SUBDOMAIN_LENGTH = 253
# Longer texts are no names, and must not fill the caches.
_MOST_CACHED = 512

Rule = Callable[[str], tuple[str, ...]]


def _cached(size: int) -> Callable[[Rule], Rule]:
    """Remember the answers for as many texts of ordinary length."""

    def decorate(rule: Rule) -> Rule:
        remembered = lru_cache(size)(rule)

        @wraps(rule)
        def check(value: str) -> tuple[str, ...]:
            return remembered(value) if len(value) <= _MOST_CACHED else rule(value)

        return check

    return decorate


def _explain(rule: str, expression: str, *examples: str) -> str:
    shown = ",  or ".join(f"'{e}'" for e in examples)
    return f"{rule} (e.g. {shown}, regex used for validation is '{expression}')"


_LABEL_RULE = _explain(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character",
    _LABEL, "my-name", "123-abc",
)  # fmt: skip
_SUBDOMAIN_RULE = _explain(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character",
    _SUBDOMAIN, "example.com",
)  # fmt: skip
_LABEL_1035_RULE = _explain(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character",
    _LABEL_1035, "my-name", "abc-123",
)  # fmt: skip
_QUALIFIED_RULE = _explain(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED, "MyName", "my.name", "123-abc",
)  # fmt: skip
_LABEL_VALUE_RULE = _explain(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character",
    f"({_QUALIFIED})?", "MyValue", "my_value", "12345",
)  # fmt: skip
_CONFIG_KEY_RULE = _explain(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY, "key.name", "KEY_NAME", "key-name",
)  # fmt: skip
_PERCENT_RULE = _explain(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%"
)


def _longer(limit: int) -> str:
    return f"must be no more than {limit} bytes"


@_cached(4096)
def label(value: str) -> tuple[str, ...]:
    """RFC 1123 label: namespaces, containers, volumes."""
    return _checked(value, _label_re, LABEL_LENGTH, _LABEL_RULE)


@_cached(4096)
def subdomain(value: str) -> tuple[str, ...]:
    """RFC 1123 subdomain: most objects."""
    return _checked(value, _subdomain_re, SUBDOMAIN_LENGTH, _SUBDOMAIN_RULE)


@_cached(1024)
def label_1035(value: str) -> tuple[str, ...]:
    """RFC 1035 label, which begins with a letter: Services."""
    return _checked(value, _label_1035_re, LABEL_LENGTH, _LABEL_1035_RULE)


def _checked(value: str, expression: re.Pattern[str], limit: int, rule: str) -> tuple[str, ...]:
    wrong = []
    if len(value) > limit:
        wrong.append(_longer(limit))
    if expression.fullmatch(value) is None:
        wrong.append(rule)
    return tuple(wrong)


@_cached(4096)
def qualified(value: str) -> tuple[str, ...]:
    """A qualified name, `name` or `example.com/name`: label keys, annotation keys, finalizers, conditions."""
    prefix, slash, name = value.rpartition("/")
    if value.count("/") > 1:
        with_prefix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return (f"a qualified name {_QUALIFIED_RULE} {with_prefix}",)
    wrong = []
    if slash:
        wrong += ["prefix part must be non-empty"] if not prefix else [f"prefix part {m}" for m in subdomain(prefix)]
    if not name:
        wrong.append("name part must be non-empty")
    elif len(name) > LABEL_LENGTH:
        wrong.append(f"name part {_longer(LABEL_LENGTH)}")
    if _qualified_re.fullmatch(name) is None:
        wrong.append(f"name part {_QUALIFIED_RULE}")
    return tuple(wrong)


@_cached(4096)
def label_value(value: str) -> tuple[str, ...]:
    """The value of a label."""
    return _checked(value, _label_value_re, LABEL_LENGTH, _LABEL_VALUE_RULE)


@_cached(1024)
def config_key(value: str) -> tuple[str, ...]:
    """A key of a ConfigMap or Secret, which becomes the name of a file."""
    if value in (".", "..") or value.startswith(".."):
        return ("must not be '.' or start with '..'" if value == "." else "must not start with '..'",)
    return _checked(value, _config_key_re, SUBDOMAIN_LENGTH, _CONFIG_KEY_RULE)


@_cached(1024)
def environment(value: str) -> tuple[str, ...]:
    """The name of an environment variable."""
    if not value or _environment_re.fullmatch(value) is None:
        return ("a valid environment variable name must consist only of printable ASCII characters other than '='",)
    return ()


@_cached(1024)
def port_name(value: str) -> tuple[str, ...]:
    """The name of a port: an IANA service name (RFC 6335)."""
    wrong = []
    if len(value) > 15:
        wrong.append("must be no more than 15 characters")
    if _port_name_re.fullmatch(value) is None:
        wrong.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any(c.isalpha() for c in value):
        wrong.append("must contain at least one letter (a-z)")
    if "--" in value:
        wrong.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        wrong.append("must not begin or end with a hyphen")
    return tuple(wrong)


def percent(value: str) -> tuple[str, ...]:
    """A percentage such as `25%`."""
    return () if _percent_re.fullmatch(value) else (_PERCENT_RULE,)


@_cached(4096)
def ip_address(value: str) -> tuple[str, ...]:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",)
    # A zone is of one host alone.
    return ("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",) if "%" in value else ()


@_cached(1024)
def cidr(value: str) -> tuple[str, ...]:
    """A network such as `10.9.8.0/24`."""
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return ("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",)
    return () if "/" in value else ("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",)
