"""Keys that are planted, and the search for them in whatever form they may have got out.

A canary's secret part is random, so nothing else can look like it. It holds `+` and `/`, so that
its URL-encoded form differs, and a run of any ten of its characters already counts as found:
a log that shows a key's last four characters is no leak, one that shows half of it is.
"""

import base64
import secrets
import string
import urllib.parse

RUN_CHARACTERS = 10
RANDOM_CHARACTERS = 34
ALPHABET = string.ascii_letters + string.digits


def made(prefix: str) -> str:
    """A key that nobody ever had."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(32))
    return f"{prefix}{letters[:16]}+{letters[16:24]}/{letters[24:]}"


def made_key_of_32_bytes() -> str:
    """A random key as base64, the form that gossip and sealing ask for."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def forms(secret: str) -> list[bytes]:
    """Every piece of text whose presence means that the secret got out."""
    random = secret[-RANDOM_CHARACTERS:]  # the prefix is no secret, others have it too
    found = [random[at : at + RUN_CHARACTERS] for at in range(RANDOM_CHARACTERS - RUN_CHARACTERS + 1)]
    found.append(urllib.parse.quote(secret, safe=""))
    found.append(secret.encode().hex())
    # Base64 of a longer text that the secret stands in: three ways to align, the edges cut off.
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"\0" * shift + secret.encode()).decode()
            found.append(whole[4:-4])
    return [form.encode() for form in found]


def leaks(planted: dict[str, str], places: dict[str, bytes]) -> list[str]:
    """One sentence for each secret and place where it was found."""
    out = []
    for name, secret in planted.items():
        needles = forms(secret)
        for place, content in places.items():
            hits = [needle for needle in needles if needle in content]
            if hits:
                at = content.index(hits[0])
                # Around the secret, not the secret: a failure is a log as well.
                before = content[max(0, at - 80) : at].decode(errors="replace")
                out.append(f"{name} is in {place}, after: {before!r}")
    return out
