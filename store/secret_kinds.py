"""The kinds of secrets that can be told by their form: a pattern each, and a check if there is one.

Knows single matches; what is done with them is `redact`'s.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from acclimate.store import secret_checks as checks

# Every pattern takes time in proportion to its input, whatever that is: it starts at a literal or
# where a word begins, repeats within bounds or possessively (+ after a quantifier), and nothing
# that repeats holds something that repeats over the same characters.
_WORD = r"(?<![A-Za-z0-9_-])"  # where a token may begin
_VALUE = r"(?P<q>[\"'`])?(?P<s>(?(q)(?:(?!(?P=q))[^\n]){1,200}|[^\s\"'`]{1,200}+))"
_IS = r"(?:[ \t]{0,4}(?::=|[-=]>|[:=→])|[ \t][-–])[ \t]{0,4}(?:[*_]{1,2}[ \t]{1,4})?"


@dataclass(frozen=True)
class Kind:
    """`pattern`'s group "s" is the secret; `check` says how many of its characters are."""

    name: str
    source: str
    flags: re.RegexFlag
    needles: tuple[str, ...] = ()  # without one of these in the lower-cased text, there is none
    check: Callable[[re.Match[str]], int] = lambda match: len(match["s"])

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled when it is looked for first: all of them would take a tenth of a start."""
        return re.compile(self.source, self.flags)


def _kind(
    name: str,
    pattern: str,
    *needles: str,
    check: Callable[[re.Match[str]], int] | None = None,
    flags: re.RegexFlag = re.NOFLAG,
) -> Kind:
    if "(?P<s>" not in pattern:
        pattern = f"(?P<s>{pattern})"
    if check is None:
        return Kind(name, pattern, flags, needles)
    return Kind(name, pattern, flags, needles, check)


def _token(name: str, pattern: str, *needles: str) -> Kind:
    return _kind(name, _WORD + f"(?P<s>{pattern})", *needles)


_I = re.IGNORECASE
_NAMED = (
    r"(?:pass(?:word|phrase|code|wort|wd)|pwd|kennwort|mot de passe|contrase[nñ]a|wachtwoord"
    r"|senha|has[lł]o|l[oö]senord|пароль|wi-?fi[ -](?:key|code)|wlan-?(?:schl[uü]ssel|key|code)"
    r"|wpa2?[ -]?(?:psk|key)|netzwerkschl[uü]ssel)"
)
_NAMED_NEEDLES = (
    *("passw", "passp", "passc", "pwd", "kennwort", "passe", "contrase", "wachtwoord", "senha"),
    *("hasl", "hasł", "senord", "пароль", "wifi", "wi-fi", "wlan", "wpa", "netzwerk"),
)
# The order matters: what has a form of its own comes before what only has a name.
KINDS: tuple[Kind, ...] = (
    _kind(
        "private key",
        r"-----BEGIN[ A-Z0-9]{0,40}PRIVATE KEY[ A-Z]{0,10}-----(?:"
        r"(?:[^-]|-(?!----))*+-----END[ A-Z0-9]{0,60}-----|(?:[\s\\nr]*+[A-Za-z0-9+/=]{16,}+)*+)",
        "private key",
    ),
    _kind(
        "private key",
        r"Private-Lines: \d{1,4}\r?\n(?:[A-Za-z0-9+/=]{1,128}+\r?\n?)*+"
        r"(?:Private-(?:MAC|Hash): [0-9a-f]{1,128}+)?",
        "private-lines:",
    ),
    _token("private key", r"AGE-SECRET-KEY-1[0-9A-Z]{40,}+", "age-secret-key-1"),
    _kind(
        "seed phrase",
        r"(?:(?:seed|recovery|backup|mnemonic)[ -]?(?:phrase|words|seed)|mnemonic"
        r"|\d\d[ -]words? (?:seed|phrase))s?\b"
        r"(?:[^\n:=.]{0,60}+[:=\n]|\s{1,3}(?:is|are|ist|lautet)\b|)[\s\"'`]{0,10}+"
        r"(?P<s>(?:\d{1,2}[.)][ \t]{0,3})?[a-z]{3,8}"
        r"(?:[\s,]{1,4}(?:\d{1,2}[.)][ \t]{0,3})?[a-z]{3,8}(?![a-z])){11,23}+)",
        *("seed", "recovery", "backup", "mnemonic", "word"),
        check=checks.seed,
        flags=_I,
    ),
    _kind(
        "aws key",
        r"(?:AKIA|ASIA)[A-Z0-9]{16}[\"']?[ \t]{0,3}[,;|:\s][ \t]{0,3}[\"']?"
        r"(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        *("akia", "asia"),
    ),
    _token(
        "aws key",
        r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        *("akia", "asia", "abia", "acca"),
    ),
    _token("google key", r"AIza[0-9A-Za-z_-]{35,}+", "aiza"),
    _token("google key", r"GOCSPX-[0-9A-Za-z_-]{20,}+", "gocspx-"),
    _token("google key", r"ya29\.[0-9A-Za-z_-]{20,}+", "ya29."),
    _token("google key", r"1//0[0-9A-Za-z_-]{30,}+", "1//0"),
    _kind(
        "azure key",
        r"(?:Account|SharedAccess|Access)Key=(?P<s>[A-Za-z0-9+/]{40,}+={0,2})",
        *("accountkey=", "accesskey="),
        flags=_I,
    ),
    _kind("azure key", r"[?&;]sig=(?P<s>[A-Za-z0-9%/+]{40,}+={0,2})", "sig="),
    _token("azure key", r"[A-Za-z0-9_~.-]{3}8Q~[A-Za-z0-9_~.-]{31,}+", "8q~"),
    _token("github token", r"gh[pousr]_[A-Za-z0-9]{36,}+", *(f"gh{c}_" for c in "pousr")),
    _token("github token", r"github_pat_[A-Za-z0-9_]{22,}+", "github_pat_"),
    _token("gitlab token", r"gl(?:[a-z]{2,6}|agent)-[A-Za-z0-9_-]{20,}+", "gl"),
    _token("slack token", r"xox[a-z]-[A-Za-z0-9-]{10,}+", "xox"),
    _token("slack token", r"xapp-\d-[A-Za-z0-9-]{10,}+", "xapp-"),
    _kind(
        "slack token",
        r"hooks\.slack\.com/(?:services|workflows)/(?P<s>[A-Za-z0-9/]{20,}+)",
        "hooks.slack.com",
    ),
    _token("stripe key", r"[srp]k_(?:live|test)_[A-Za-z0-9]{10,}+", "k_live_", "k_test_"),
    _token("stripe key", r"whsec_[A-Za-z0-9+/]{20,}+={0,2}", "whsec_"),
    _token("anthropic key", r"sk-ant-[A-Za-z0-9_-]{20,}+", "sk-ant-"),
    _token("openai key", r"sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}+", "sk-"),
    _token("huggingface token", r"(?:hf|api_org)_[A-Za-z0-9]{30,}+", "hf_", "api_org_"),
    _token("npm token", r"npm_[A-Za-z0-9]{36,}+", "npm_"),
    _token("pypi token", r"pypi-[A-Za-z0-9_-]{50,}+", "pypi-"),
    _token("telegram token", r"\d{8,10}:AA[A-Za-z0-9_-]{32,}+", ":aa"),
    _token("sendgrid key", r"SG\.[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,}+", "sg."),
    _token("twilio key", r"SK[0-9a-f]{32}(?![A-Za-z0-9])", "sk"),
    _kind("twilio key", r"twilio[^\n]{0,40}?\b(?P<s>[0-9a-f]{32})\b", "twilio", flags=_I),
    _token(
        "service token",
        r"(?:dop_v1_[a-f0-9]{64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|lin_api_[A-Za-z0-9]{32,}+"
        r"|ntn_[A-Za-z0-9]{40,}+|dapi[a-h0-9]{32}|glsa_[A-Za-z0-9_]{32,}+|sq0[a-z]{3}-[\w-]{22,}+)",
        *("dop_v1_", "shp", "lin_api_", "ntn_", "dapi", "glsa_", "sq0"),
    ),
    _kind(
        "jwt",
        _WORD + r"(?P<s>eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){1,3})",
        "eyj",
        check=checks.jwt,
    ),
    _kind(
        "url password",
        r"://[^\s:/?#@\"'<>]{0,128}+:(?P<s>[^\s/@\"'<>]{1,256}+)@",
        "://",
        check=checks.given,
    ),
    _kind(
        "authorization header",
        r"authorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?:[a-z-]{4,16}[ \t]{1,4})?"
        r"(?P<s>[A-Za-z0-9+/=_.~:-]{8,}+)",
        "authorization",
        check=checks.given,
        flags=_I,
    ),
    _kind(
        "authorization header",
        r"(?<![a-z])(?:bearer|basic)[ \t]{1,4}(?P<s>[A-Za-z0-9+/=_.~-]{16,}+)",
        *("bearer", "basic"),
        check=checks.random,
        flags=_I,
    ),
    _kind(
        "netrc password",
        r"(?:machine[ \t\n]{1,20}\S{1,200}+|default)[ \t\n]{1,20}login[ \t\n]{1,20}\S{1,200}+"
        r"[ \t\n]{1,20}(?:account[ \t\n]{1,20}\S{1,200}+[ \t\n]{1,20})?"
        r"password[ \t\n]{1,20}(?P<s>\S{1,200}+)",
        "login",
    ),
    _kind(
        "pgpass password",
        r"^(?P<host>[^\s:]{1,255}+):(?:\d{1,5}|\*):[^\s:]{1,64}+:(?P<user>[^\s:]{1,64}+)"
        r":(?P<s>\S{1,200}+)[ \t]*$",
        ":",
        check=checks.pgpass,
        flags=re.MULTILINE,
    ),
    _kind(
        "credit card",
        r"(?<![\w+.,/-])"
        r"(?P<s>\d{4}(?P<c>[ \-\u00a0]?)\d{4}(?P=c)\d{4}(?P=c)\d{1,4}(?:(?P=c)\d{1,3})?"
        r"|\d{4}(?P<d>[ -]?)\d{6}(?P=d)\d{4,5})(?![\w-]|[.,]\d)",
        check=checks.card,
    ),
    _kind("card code", r"\bcv[vc]2?\b[ \t]{0,3}(?::|=|is|ist|)[ \t]{0,3}(?P<s>\d{3,4})\b",
          "cvv", "cvc", flags=_I),
    _kind(
        "iban",
        r"(?<![A-Za-z0-9])(?P<s>[A-Z]{2}\d{2}(?:[ \-\u00a0]?[A-Z0-9]{4}){2,7}"
        r"(?:[ \-\u00a0]?[A-Z0-9]{1,4})?)",
        check=checks.iban,
    ),
    _kind(
        "secret",
        r"(?:(?:api|access|auth|encryption|signing|private)[\]_ -]{0,2}key"
        r"|secret(?: access)?(?: key)?|token|credential|schl[uü]ssel)[\w-]{0,30}+[\"'`]?"
        r"(?:[ \t]{1,3}for[ \t][^\n:=.?]{1,40}?)?"
        r"(?:" + _IS + r"|[ \t]{1,3}(?:is|ist|was|lautet)[ \t:]{1,3})[\"'`]?"
        r"(?P<s>[A-Za-z0-9+/=_.~-]{16,}+)",
        *("key", "secret", "token", "credential", "ssel"),
        check=checks.random,
        flags=_I,
    ),
    _kind("password", r"WIFI:[^\n]{0,100}?;P:(?P<s>[^;\n]{1,80}+);", "wifi:", flags=_I),
    _kind(
        "password",
        r"pass-?phrase[^\n:=.?]{0,40}?(?:" + _IS + r"| (?:is|ist|lautet) )[\"'`]?"
        r"(?P<s>[a-z]{2,12}(?:[ -][a-z]{2,12}){2,9}+)(?=[\"'`.\n]|$)",
        "passphrase",
        "pass-phrase",
        flags=_I,
    ),
    _kind(
        "password",
        _NAMED + r"s?\d{0,2}[\"'`\])*_]{0,2}"
        r"(?:[ \t]{0,3}:[ \t]{0,3}[A-Za-z][\w.\[\]|]{0,30}+(?=[ \t]{0,3}=)"
        r"|(?P<about>[ \t]{1,3}[^\n:=.?]{1,40}?))?" + _IS + _VALUE,
        *_NAMED_NEEDLES,
        check=checks.password,
        flags=_I,
    ),
    _kind(
        "password",
        _NAMED + r"(?P<about>[^\n.?!:=]{0,60}?)[ \t](?:is|was|are|ist|war|lautet|est|es|è|jest)"
        r"(?:[ \t](?:now|still|set to|called|jetzt|currently))?:?[ \t]{1,3}" + _VALUE,
        *_NAMED_NEEDLES,
        check=checks.password,
        flags=_I,
    ),
    _kind(
        "password",
        r"(?:--(?:password|passwd|pass|token|secret)(?:=|[ \t])|\bsshpass -p[ \t]?"
        r"|(?<!\w)(?:pass|pw)[ \t]{0,2}[:=][ \t]{0,3})" + _VALUE,
        *("--pass", "--token", "--secret", "sshpass", "pass", "pw"),
        check=checks.certain_password,
        flags=_I,
    ),
    _kind(
        "password",
        r"\s(?:-u|--user)[ \t]{1,3}[\"']?[^\s:\"']{1,64}+:(?P<s>[^\s\"']{1,128}+)",
        "curl",
        check=checks.given,
    ),
    _kind(
        "password",
        r"<[\w:.-]{0,30}?(?:password|passwd|pwd|secret|token|api-?key)[\w-]{0,10}>"
        r"(?P<s>[^<>\s]{3,200}+)</",
        *("password>", "passwd>", "pwd>", "secret", "token", "key>"),
        check=checks.password,
        flags=_I,
    ),
    _kind(
        "password",
        r"(?:\|[ \t]{0,4}" + _NAMED + r"[ \t]{0,20}\|[ \t]{0,20}"
        r"|\b(?:env|arg|setx?)[ \t]{1,3}\w{0,30}?pass(?:word|wd)?[ \t]{1,3}"
        r"|" + _NAMED + r":?[*_]{0,2}[ \t]{0,4}\n[ \t]{0,8}(?=\S{1,60}+[ \t]{0,4}(?:\n|$)))"
        r"(?P<s>[^\s|]{3,100}+)",
        *_NAMED_NEEDLES,
        check=checks.certain_password,
        flags=_I,
    ),
    _kind(
        "password",
        r"(?:\bmysql\w{0,10}[^\n]{0,80}?[ \t]-p(?!ort\b)"
        r"|\bauth[ ]?=[ ]?\(\s?[\"'][^\"'\n]{1,64}+[\"'],\s?[\"'])(?P<s>[^\s\"']{4,128}+)",
        *("mysql", "auth"),
        check=checks.certain_password,
        flags=_I,
    ),
    _kind(
        "pin",
        r"(?<![A-Za-z])(?:pin|geheimzahl)(?:[ -]?(?:code|number|nummer))?\b(?! (?:the|it|them)\b)"
        r"(?:[^\n]{0,60}?(?:\bis|\bist|\blautet|[:=])[ \t]{0,3}|[ \t,]{1,3}"
        r"|[^\n\d]{0,40}?(?:card|karte|visa|konto|account|sim)[ \t]{1,3})(?P<s>\d{4,8})(?!\d)",
        *("pin", "geheimzahl"),
        check=checks.pin,
        flags=_I,
    ),
    _kind(
        "pin",
        r"(?<![\w.,-])(?P<s>\d{4,8}) (?:is|ist) (?:the|my|its|der|die|meine) (?:pin|geheimzahl)\b",
        *("pin", "geheimzahl"),
        check=checks.pin,
        flags=_I,
    ),
)  # fmt: skip
