"""An RNA from RNAcentral by its id, e.g. URS000047C79B_9606: the public API, no account.

fetch("URS000047C79B_9606") -> Record("URS000047C79B_9606", "Homo sapiens (human) ...", "GGCUGG...")
"""

import http.client
import json
import re
import urllib.error
import urllib.request

from rnagpt_core.errors import UserError
from rnagpt_core.safe_text import one_line
from rnagpt_core.sequences import Record, parse_sequence

API = "https://rnacentral.org/api/v1"
MAX_BYTES = 5_000_000  # of an answer; the longest RNAs of RNAcentral have some 300,000 nt
TIMEOUT = 20  # seconds
RNACENTRAL_ID = re.compile(r"URS[0-9A-F]{10}(_[0-9]{1,9})?", re.IGNORECASE)


def is_rnacentral_id(text: str) -> bool:
    """Whether a text has the form of an id.

    >>> is_rnacentral_id("URS000047C79B_9606"), is_rnacentral_id("URS12"), is_rnacentral_id("ACGU")
    (True, False, False)
    """
    return RNACENTRAL_ID.fullmatch(text.strip()) is not None


def fetch(rna_id: str, api: str = API) -> Record:
    """The RNA with this id, of the species whose taxonomy id follows the underscore.

    Raises:
        UserError: the form of the id, no such RNA, no way to RNAcentral, or an answer that is none.
    """
    rna_id = rna_id.strip()
    if not is_rnacentral_id(rna_id):
        raise UserError(f"{one_line(rna_id)[:40]} is no RNAcentral id: expected a form like URS000047C79B_9606")
    urs, _, taxid = rna_id.upper().partition("_")
    rna_id = f"{urs}_{taxid}" if taxid else urs
    address = f"{api}/rna/{urs}/{taxid}" if taxid else f"{api}/rna/{urs}"
    request = urllib.request.Request(f"{address}/?format=json", headers={"User-Agent": "rnagpt"})
    instead = "give the sequence itself, or a FASTA file"
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            content = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise UserError(f"RNAcentral has no RNA {rna_id}: check the id and the taxonomy id") from None
        raise UserError(f"RNAcentral answered {error.code} for {rna_id}: try again later, or {instead}") from None
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        cause = getattr(error, "reason", None) or error
        reason = one_line(str(getattr(cause, "strerror", None) or cause))
        raise UserError(
            f"RNAcentral could not be reached for {rna_id} ({reason}): this needs the internet; connect, or {instead}"
        ) from None
    try:
        if len(content) > MAX_BYTES:
            raise ValueError
        found = json.loads(content)
        sequence, description = found["sequence"], found.get("description") or ""
        if not isinstance(sequence, str) or not isinstance(description, str):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"RNAcentral's answer for {rna_id} cannot be read: try again later, or {instead}") from None
    return Record(rna_id, one_line(description), parse_sequence(sequence, f"RNAcentral's {rna_id}").sequence)
