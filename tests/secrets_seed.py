"""Made-up secrets in the places where people leave them, and ordinary facts that look alike.

Made from what the issuers publish of their formats, not from the patterns that look for them. The
same seed gives the same set. No secret here opens anything.
"""

import base64
import hashlib
import json
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

LETTERS = string.ascii_letters
ALNUM = string.ascii_letters + string.digits
BASE64 = ALNUM + "+/"
URL64 = ALNUM + "-_"
HEX = "0123456789abcdef"
Carrier = Literal["note", "code", "chat"]


@dataclass(frozen=True)
class Seeded:
    kind: str
    secret: str  # what must not be stored, on one line or on several
    text: str  # the text that holds it
    carrier: Carrier


class Maker:
    """One random stream; every method takes from it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def some(self, alphabet: str, length: int) -> str:
        """Random characters, digits and letters among them."""
        while True:
            text = "".join(self.rng.choices(alphabet, k=length))
            if any(c.isdigit() for c in text) and any(c.isalpha() for c in text):
                return text

    def pick(self, *choices: str) -> str:
        return self.rng.choice(choices)

    # Kinds, by what their issuers document

    def private_key(self) -> str:
        name = self.pick("RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA ", "")
        body = self.some(BASE64, self.rng.choice((120, 392, 800))) + "=="
        lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
        return f"-----BEGIN {name}PRIVATE KEY-----\n{lines}\n-----END {name}PRIVATE KEY-----"

    def putty_key(self) -> str:
        lines = [self.some(BASE64, 64) for _ in range(self.rng.randint(3, 14))]
        return (
            f"Private-Lines: {len(lines)}\n"
            + "\n".join(lines)
            + f"\nPrivate-MAC: {self.some(HEX, 64)}"
        )

    def aws_id(self) -> str:
        return self.pick("AKIA", "ASIA") + self.some("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)

    def jwt(self) -> str:
        def part(value: object) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        head = {"alg": self.pick("HS256", "RS256", "ES256"), "typ": "JWT"}
        claims = {"sub": self.some(string.digits + "a", 8), "iat": 1_790_000_000}
        return f"{part(head)}.{part(claims)}.{self.some(URL64, 43)}"

    def card(self) -> str:
        start, length = self.rng.choice(
            [("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16)]
        )
        digits = start + "".join(self.rng.choices("0123456789", k=length - len(start) - 1))
        total = 0
        for i, digit in enumerate(reversed(digits)):
            n = int(digit) * (2 if i % 2 == 0 else 1)
            total += n - 9 if n > 9 else n
        digits += str(-total % 10)
        sep = self.pick("", " ", "-")
        if length == 15:
            return sep.join((digits[:4], digits[4:10], digits[10:]))
        return sep.join(digits[i : i + 4] for i in range(0, 16, 4))

    def iban(self) -> str:
        country, length, bank = self.rng.choice(
            [
                *(("DE", 22, ""), ("GB", 22, "WEST"), ("FR", 27, ""), ("NL", 18, "ABNA")),
                *(("ES", 24, ""), ("AT", 20, ""), ("CH", 21, ""), ("IT", 27, "X"), ("PL", 28, "")),
            ]
        )
        bban = bank + "".join(self.rng.choices("0123456789", k=length - 4 - len(bank)))
        number = "".join(str(string.digits.find(c) if c.isdigit() else ord(c) - 55)
                         for c in f"{bban}{country}00")  # fmt: skip
        text = f"{country}{98 - int(number) % 97:02d}{bban}"
        return " ".join(text[i : i + 4] for i in range(0, length, 4)) if self.flip() else text

    def flip(self) -> bool:
        return self.rng.random() < 0.5

    def password(self) -> str:
        word = self.pick(*"Tulip harbour Moth lantern Velvet kettle Gristle sardine orbit".split())
        other = self.pick(*"Boat river Crow anvil Pickle tram".split())
        return self.pick(
            f"{word}{self.rng.randint(10, 9999)}{self.pick('!', '#', '$', '')}",
            f"{word}-{other}-{self.rng.randint(1, 99)}",
            self.some(ALNUM + "!#$%&*+-?@", self.rng.randint(10, 20)),
            f"{word}_{other}{self.rng.randint(1, 9)}!",
        )

    def seed_words(self) -> str:
        words = """abandon ability orbit trigger velvet wisdom zebra ribbon puzzle ocean noble
        mimic lunar kitten jacket harbor galaxy fabric eagle donkey cactus bamboo anchor island
        laptop magnet napkin oxygen pencil quantum rabbit saddle tobacco umbrella""".split()
        chosen = self.rng.sample(words, self.rng.choice((12, 24)))
        if self.flip():
            return "\n".join(f"{i}. {word}" for i, word in enumerate(chosen, start=1))
        return " ".join(chosen)


def _plain(kind: str, make: Callable[[Maker], str]) -> tuple[str, Callable[[Maker], str]]:
    return kind, make


# Tokens that have a form of their own, wherever they stand.
TOKENS: tuple[tuple[str, Callable[[Maker], str]], ...] = (
    ("private key", Maker.private_key),
    ("private key (PuTTY)", Maker.putty_key),
    ("aws access key id", Maker.aws_id),
    ("google api key", lambda m: "AIza" + m.some(URL64, 34) + "k"),
    ("google oauth", lambda m: m.pick("GOCSPX-" + m.some(URL64, 28), "ya29." + m.some(URL64, 120))),
    ("azure client secret", lambda m: f"{m.some(ALNUM, 3)}8Q~{m.some(ALNUM + '-_.~', 33)}k"),
    ("github token", lambda m: m.pick("ghp_", "gho_", "ghs_", "ghu_") + m.some(ALNUM, 36)),
    ("github token (fine-grained)",
     lambda m: f"github_pat_{m.some(ALNUM, 22)}_{m.some(ALNUM, 59)}"),
    ("gitlab token", lambda m: m.pick("glpat-", "gldt-", "glrt-") + m.some(URL64, 19) + "k"),
    ("slack token", lambda m: f"xoxb-{m.rng.randrange(10**11, 10**12)}"
                              f"-{m.rng.randrange(10**12, 10**13)}-{m.some(ALNUM, 24)}"),
    ("slack webhook", lambda m: f"https://hooks.slack.com/services/T{m.some('ABC0123456789', 8)}"
                                f"/B{m.some('ABC0123456789', 10)}/{m.some(ALNUM, 24)}"),
    ("stripe key", lambda m: m.pick("sk_live_", "sk_test_", "rk_live_") + m.some(ALNUM, 24)),
    ("openai key", lambda m: m.pick(f"sk-{m.some(ALNUM, 20)}T3BlbkFJ{m.some(ALNUM, 20)}",
                                    "sk-proj-" + m.some(URL64, 155) + "A")),
    ("anthropic key", lambda m: f"sk-ant-api03-{m.some(URL64, 92)}AA"),
    ("huggingface token", lambda m: "hf_" + m.some(ALNUM, 34)),
    ("npm token", lambda m: "npm_" + m.some(ALNUM, 36)),
    ("pypi token", lambda m: "pypi-AgEIcHlwaS5vcmc" + m.some(URL64, 150) + "k"),
    ("telegram token", lambda m: f"{m.rng.randrange(10**9, 10**10)}:AA{m.some(URL64, 32)}k"),
    ("sendgrid key", lambda m: f"SG.{m.some(URL64, 21)}k.{m.some(URL64, 42)}k"),
    ("twilio key", lambda m: "SK" + m.some(HEX, 32)),
    ("jwt", Maker.jwt),
    ("credit card", Maker.card),
    ("iban", Maker.iban),
)  # fmt: skip
_TOKEN_CARRIERS: tuple[tuple[Carrier, str], ...] = (
    ("note", "# Things to move over\n\nThe key for the job is\n\n{s}\n\nand then ring Odile."),
    ("note", "- renew the tram pass\n- {s}\n- felt for the hats"),
    ("note", "Found on the old laptop: {s} (still works?). Ask Caspar before Friday."),
    ("code", 'client = connect(\n    "{s}",\n    retries=3,\n)\n'),
    ("code", "# settings\nSERVICE={s}\nDEBUG=1\n"),
    ("code", 'const key = `{s}`;\nexport default key;\n'),
    ("chat", "Can you check whether this one still works? {s}"),
    ("chat", "You asked me to keep this for you:\n{s}"),
)  # fmt: skip
# Secrets that only their surroundings tell: a made-up value within a text of its own.
PLACED: tuple[tuple[str, Callable[[Maker], str], tuple[tuple[Carrier, str], ...]], ...] = (
    ("aws secret access key", lambda m: m.some(BASE64, 40), (
        ("code", "[default]\naws_access_key_id = {aws}\naws_secret_access_key = {s}\n"),
        ("code", 'export AWS_SECRET_ACCESS_KEY="{s}"\n'),
        ("note", "Access key ID,Secret access key\n{aws},{s}\n"),
        ("chat", "my aws secret key is {s}, put it into the pipeline"),
    )),
    ("azure storage key", lambda m: m.some(BASE64, 86) + "==", (
        ("code", "DefaultEndpointsProtocol=https;AccountName=hem;AccountKey={s};"
                 "EndpointSuffix=core.windows.net"),
        ("note", "Storage: AccountName=hem;AccountKey={s}"),
    )),
    ("twilio auth token", lambda m: m.some(HEX, 32), (
        ("code", 'TWILIO_AUTH_TOKEN={s}\n'),
        ("code", 'twilio = Client("AC0123", "{s}")\n'),
        ("note", "Twilio auth token: {s}"),
    )),
    ("url password", Maker.password, (
        ("code", 'DATABASE_URL=postgres://hem:{u}@db.example.org:5432/ledger\n'),
        ("note", "The camera is at rtsp://admin:{u}@192.168.1.20/stream"),
        ("chat", "clone it with git clone https://odile:{u}@git.example.org/hats.git"),
    )),
    ("authorization header", lambda m: m.some(ALNUM + "._-", 40), (
        ("code", 'curl -H "Authorization: Bearer {s}" https://api.example.org/v1/hats\n'),
        ("code", 'headers = {{"Authorization": "Bearer {s}"}}\n'),
        ("chat", "the call was: Authorization: Basic {b}"),
    )),
    ("password", Maker.password, (
        ("code", 'password = "{s}"\n'),
        ("code", "DB_PASSWORD={s}\nDB_HOST=localhost\n"),
        ("code", "database:\n  user: hem\n  password: {s}\n"),
        ("code", '{{"user": "hem", "password": "{s}", "port": 5432}}\n'),
        ("note", "Router\n\nPasswort: {s}\n\nSteht auch unten drauf."),
        ("note", "Wifi password: {s}"),
        ("note", "Theatre account: login hem, password {c} {s}"),
        ("chat", "my password is {s}, remember it"),
        ("chat", "The password for the box office laptop is {s}."),
        ("chat", "Das Passwort ist {s}"),
    )),
    ("card pin", lambda m: f"{m.rng.randrange(10_000):04d}", (
        ("note", "Bank card: PIN {s}"),
        ("note", "The PIN of my debit card is {s}."),
        ("chat", "My Visa card's PIN is {s}"),
        ("note", "EC-Karte, Geheimzahl: {s}"),
    )),
    ("netrc password", Maker.password, (
        ("code", "machine api.example.org login hem password {s}\n"),
        ("code", "machine ftp.example.org\n  login hem\n  password {s}\n"),
    )),
    ("pgpass password", Maker.password, (
        ("code", "db.example.org:5432:ledger:hem:{u}\n"),
        ("code", "localhost:5432:*:postgres:{u}\n"),
    )),
    ("seed phrase", Maker.seed_words, (
        ("note", "Wallet\n\nSeed phrase:\n{s}\n\nNever say it."),
        ("chat", "my recovery phrase is {s}"),
        ("note", "recovery phrase: {s}"),
    )),
    ("generic secret", lambda m: m.pick(m.some(ALNUM, 32), m.some(HEX, 40), m.some(URL64, 43)), (
        ("code", 'api_key = "{s}"\n'),
        ("code", "SECRET_KEY={s}\n"),
        ("code", "service:\n  token: {s}\n"),
        ("note", "API key for the weather site: {s}"),
        ("chat", "the client secret is {s}"),
    )),
)  # fmt: skip


def secrets(count: int = 500, seed: int = 20_261_122) -> list[Seeded]:
    """`count` secrets, the kinds in turn, each in one of its carriers."""
    m = Maker(seed)
    out = []
    kinds = len(TOKENS) + len(PLACED)
    for n in range(count):
        turn, index = divmod(n, kinds)
        if index < len(TOKENS):
            kind, make = TOKENS[index]
            secret = make(m)
            carrier, template = _TOKEN_CARRIERS[(turn + index) % len(_TOKEN_CARRIERS)]
            text = template.format(s=secret)
            if kind == "slack webhook":
                secret = secret.rpartition("/")[2]
        else:
            kind, make, carriers = PLACED[index - len(TOKENS)]
            secret = make(m)
            carrier, template = carriers[turn % len(carriers)]
            if "{u}" in template:  # where the format forbids some signs
                secret = "".join(c for c in secret if c not in "@/:%#?")
            if "{b}" in template:
                secret = base64.b64encode(f"hem:{secret}".encode()).decode()
            text = template.format(s=secret, u=secret, b=secret, aws=m.aws_id(), c=":")
        out.append(Seeded(kind, secret, text, carrier))
    return out


def pieces(secret: str) -> list[str]:
    """What to look for where the secret must not be: its long lines, or all of it."""
    lines = [line for line in secret.splitlines() if len(line) > 20 and "--" not in line]
    if "\n" in secret and not lines:  # a numbered list of words
        return [" ".join(line.split(". ")[-1] for line in secret.splitlines()), secret]
    return lines or [secret]


def ordinary(count: int = 1000, seed: int = 7) -> list[tuple[str, str]]:
    """Facts that must stay, as (what must still be there, the text that holds it)."""
    m = Maker(seed)
    r = m.rng

    def digits(n: int) -> str:
        return "".join(r.choices("0123456789", k=n))

    def isbn() -> str:
        body = "978" + digits(9)
        check = -sum(int(d) * (1 + 2 * (i % 2)) for i, d in enumerate(body)) % 10
        return f"{body[:3]}-{body[3]}-{body[4:8]}-{body[8:12]}-{check}"

    def date() -> str:
        y, mo, d = r.randint(1950, 2030), r.randint(1, 12), r.randint(1, 28)
        return m.pick(f"{y}-{mo:02d}-{d:02d}", f"{d}.{mo}.{y}", f"{d:02d}/{mo:02d}/{y}")

    makers: tuple[tuple[Callable[[], str], tuple[str, ...]], ...] = (
        (lambda: digits(4), ("The code for my bike lock is {}.", "bike lock: {}",
                             "What's the code for my bike lock?\nThe code is {}.",
                             "The gate's code is {} and then the star key.",
                             "The PIN of the garden gate is {}.", "Gate PIN: {}",
                             "alarm code {}, press hash", "The year is {}, said the clock.")),
        (lambda: str(r.randint(1, 400)), ("My locker number is {}.", "locker {}",
                                          "My password is {} days old, they say.",
                                          "Bus {} goes to the token museum.")),
        (lambda: m.pick(f"+44 20 7946 0{digits(3)}", f"+49 170 {digits(7)}", f"0{digits(10)}",
                        f"(020) 7946 0{digits(3)}", f"0{digits(4)}-{digits(6)}"),
         ("Odile's phone number is {}.", "Ring {} about the boiler.", "Tel. {}")),
        (date, ("Our anniversary is {}.", "Born {}", "The lease ends on {}.", "due: {}")),
        (isbn, ("ISBN {}", "The dye book is {} in the catalogue.")),
        (lambda: m.some(HEX, 40), ("commit {}", "Fixed in {} on main.", "git revert {}")),
        (lambda: m.some(HEX, 7), ("See {} for the fix.",)),
        (lambda: hashlib.sha256(digits(8).encode()).hexdigest(), ("sha256 {}  hats.tar",)),
        (lambda: str(uuid.UUID(int=r.getrandbits(128))), ("id: {}", "The device is {}.",)),
        (lambda: f"{digits(2)}:{digits(2)}:{digits(2)}:{digits(2)}:{digits(2)}:{digits(2)}",
         ("{}", "MAC {}")),
        (lambda: f"1Z{digits(16)}", ("Parcel {} is on its way.", "tracking {}")),
        (lambda: m.pick("stored in the blue notebook", "wrong", "too short", "at least 12 long",
                        "the name of a boat", "required", "changed every month"),
         ("The password is {}.", "my password is {}", "Passwords: {}")),
        (lambda: m.pick("get_password()", "None", "os.environ['PW']", "config.password", "str",
                        "args.password", "getpass.getpass()"),
         ("password = {}\n", "def login(user, password={}):\n    ...\n")),
        (lambda: m.pick("max_tokens = 512", "token_count: 1480", "tokenizer = AutoTokenizer.load",
                        "secretName: hat-shop-secrets", "key = sorted(names)[0]",
                        "api_key = settings.api_key", "token = request.headers['x-token']",
                        "API_KEY=your_api_key_here", "postgres://hem:${PASS}@db/ledger"),
         ("{}\n", "Note: {}\n")),
        (lambda: m.pick("Keepass", "a paper notebook", "Bitwarden"),
         ("My password manager is {}.", "For passwords I use {}.")),
        (lambda: m.pick("tomato basil carrot lettuce radish kale spinach leek onion fennel",
                        "bring wool, felt, pins, thread, ribbon and chalk for the hats"),
         ("Seeds: {}", "Backup plan: {}", "For recovery days: {}")),
        (lambda: f"{r.randint(1, 9)}{digits(3)} {digits(4)} {digits(4)}",
         ("Meter reading {}", "Order {} has shipped.", "Library card {}")),
        (lambda: digits(8), ("Invoice {}", "customer number {}", "membership {}")),
        (lambda: f"{r.uniform(-80, 80):.6f}, {r.uniform(-170, 170):.6f}", ("The hut is at {}.",)),
        (lambda: m.pick("Verity says that it is grief", "the basic idea of the bearer is love",
                        "a basic introduction to dyeing", "the secret of felt is hot water",
                        "their token gesture was a scone", "PIN the pattern to the cloth"),
         ("{}.", "I think {}.", "She wrote: {}.")),
        (lambda: f"https://example.org/hats?id={digits(6)}&page={digits(2)}", ("See {}", "{}")),
        (lambda: f"{digits(2)}:{digits(2)}", ("The tram leaves at {}.", "Practice: {} sharp")),
        (lambda: f"{r.randint(100, 999)}.{r.randint(100, 999)}.{r.randint(1, 255)}.1",
         ("The printer is at {}.",)),
    )  # fmt: skip
    out = []
    for n in range(count):
        make, templates = makers[n % len(makers)]
        fact = make()
        out.append((fact, templates[(n // len(makers)) % len(templates)].format(fact)))
    return out


# Secrets without a form, as people tell them: (the secret, the text). Nothing is promised here.
PLAIN_WORDS: tuple[tuple[str, str], ...] = (
    ("buttercup", "To get into the shared laptop, type buttercup and press enter."),
    ("8841", "The card at the back of the drawer takes 8841 at the machine."),
    ("gull and herring", "My login is the same everywhere: gull and herring."),
    ("Rosalind", "For the bank's question about my mother say Rosalind."),
    ("tulip-ferry", "Odile uses tulip-ferry for everything, don't tell her I wrote it down."),
    ("hunter22", "I finally remembered it, hunter22, that's how I log in."),
    ("4471", "When the cash machine asks, it's 4471."),
    ("felt4ever", "Caspar changed the router to felt4ever last night."),
    ("moth moth moth", "The safe word of the wallet is moth moth moth."),
    ("99 Red Kettles", "If it asks who I am, the phrase is 99 Red Kettles."),
    ("swordfish", "The password, if you must know, is swordfish."),
    ("sardine7", "password -> sardine7"),
    ("otter!22", "pw otter!22 for the box office"),
    ("lantern_9", "Use lantern_9 as the password."),
    ("velvet-88", "I set the password to velvet-88."),
    ("k3ttle", "Her pass is k3ttle"),
    ("2580", "My phone unlocks with 2580."),
    ("grist&mill", "User hem, then grist&mill."),
    ("orbit5", "Log in as hem with orbit5."),
    ("anvil#3", "Netflix: hem@example.org / anvil#3"),
)


# More places, written by hand after the patterns were: (the secret, the text).
OTHER_PLACES: tuple[tuple[str, str], ...] = (
    ("x9-Tulip", "<password>x9-Tulip</password>"),
    ("x9-Tulip", "| router | password | x9-Tulip |"),
    ("AKIAIOSFODNN7EXAMPLE", "| AWS | AKIAIOSFODNN7EXAMPLE | prod |"),
    ("x9-Tulip", "ENV DB_PASSWORD x9-Tulip"),
    ("x9-Tulip", "spring.datasource.password=x9-Tulip"),
    ("x9-Tulip", "export PGPASSWORD='x9-Tulip'"),
    ("eDktVHVsaXA=", "data:\n  password: eDktVHVsaXA="),
    (
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
        '"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\\nabc'
        '\\n-----END PRIVATE KEY-----\\n"',
    ),
    ("x9-Tulip", "mysql -u root -px9-Tulip shop"),
    ("x9-Tulip", "redis://:x9-Tulip@cache:6379/0"),
    ("x9-Tulip", "Username: hem\nPassword:\n  x9-Tulip"),
    ("x9-Tulip", "Password (new): x9-Tulip"),
    ("x9-Tulip", "**Password:** x9-Tulip"),
    ("x9-Tulip", "Password: `x9-Tulip`"),
    ("x9-Tulip", "_Password_: x9-Tulip"),
    ("x9-Tulip", "PW: x9-Tulip"),
    ("x9-Tulip", "Pass = x9-Tulip"),
    ("x9-Tulip", "user=hem;pwd=x9-Tulip;server=a"),
    ("x9-Tulip", "Server=a;User Id=hem;Password=x9-Tulip;"),
    ("x9-Tulip", "the wifi password at Gran's is x9-Tulip"),
    ("x9-Tulip", "Mein WLAN-Passwort lautet x9-Tulip."),
    ("x9-Tulip", "le mot de passe est x9-Tulip"),
    ("x9-Tulip", "la contraseña es x9-Tulip"),
    ("x9-Tulip", "password for box office is: x9-Tulip"),
    ("x9-Tulip", "Your new password is x9-Tulip, please change it"),
    ("x9-Tulip", "requests.get(u, auth=('hem', 'x9-Tulip'))"),
    ("GB33BUKB20201555555555", "iban gb33BUKB20201555555555"),
    ("GB33 BUKB 2020 1555 5555 55", "Transfer to GB33 BUKB 2020 1555 5555 55, thanks"),
    ("4111-1111-1111-1111", "4111-1111-1111-1111, 12/28, CVV 123"),
    ("CVV 123", "4111-1111-1111-1111, 12/28, CVV 123"),
    ("9f86d081884c7d659a2feaa0c55ad015", "Authorization: Token 9f86d081884c7d659a2feaa0c55ad015"),
    ("9f86d081884c7d659a2feaa0c55ad015", "X-Api-Key: 9f86d081884c7d659a2feaa0c55ad015"),
    (
        "9f86d081884c7d659a2feaa0c55ad015",
        "https://api.example.org/?api_key=9f86d081884c7d659a2feaa0c55ad015&x=1",
    ),
    ("9f86d081884c7d659a2feaa0c55ad015", "apiKey: '9f86d081884c7d659a2feaa0c55ad015',"),
    ("9f86d081884c7d659a2feaa0c55ad015", "[api] key: 9f86d081884c7d659a2feaa0c55ad015"),
    ("550e8400-e29b-41d4-a716-446655440000", "HEROKU_API_KEY=550e8400-e29b-41d4-a716-446655440000"),
    (
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "git clone https://ghp_abcdefghijklmnopqrstuvwxyz0123456789@github.com/a/b",
    ),
    ("7294", "EC-Karte PIN: 7294"),
    ("7294", "pin for the visa 7294"),
    ("7294", "My bank card: 7294 is the pin"),
    (
        "orbit trigger velvet",
        "12 word seed: orbit trigger velvet wisdom zebra ribbon puzzle ocean noble mimic"
        " lunar kitten",
    ),
    (
        "orbit trigger velvet",
        "Seed phrase (metamask): orbit trigger velvet wisdom zebra ribbon puzzle ocean"
        " noble mimic lunar kitten",
    ),
    (
        "abcdEFGH12345678abcdEFGH",
        "-----BEGIN OPENSSH PRIVATE KEY-----\r\nabcdEFGH12345678abcdEFGH\r\n"
        "-----END OPENSSH PRIVATE KEY-----",
    ),
    ("x9-Tulip", "sshpass -p 'x9-Tulip' ssh hem@a"),
    ("x9-Tulip", "net use z: \\\\a\\b /user:hem x9-Tulip"),
    ("x9-Tulip", 'psql "host=a password=x9-Tulip dbname=b"'),
)
