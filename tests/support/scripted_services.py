"""RNAcentral, EBI Search, LitScan and Europe PMC on the loopback: the services' shapes, with the faults they have.

    with ScriptedServices(rnas, papers, faults=0.1) as services: ... services.addresses

`rnas` and `papers` are rows of tests/synthetic_literature.py. Faults: 429 with Retry-After, 500, cut JSON, slow
answers, HTTP 200 with an error inside, a search cursor that repeats.
"""

import json
import random
import threading
import time
from collections import Counter, defaultdict
from urllib.parse import parse_qs, urlsplit

from loopback_server import LoopbackServer, send

KINDS = ["429", "500", "cut", "slow", "error inside", "repeat"]


class ScriptedServices(LoopbackServer):
    def __init__(
        self, rnas, papers, faults=0.0, seed=0, hang=1.0, page=1000, without_abstract=(), retracted=(), short=0
    ):
        super().__init__()
        self.rnas = {row["rna_id"]: row for row in rnas}
        self.papers = {row["pmid"]: {**row, "pmcid": f"PMC{row['pmid']}"} for row in papers}
        self.of_alias = defaultdict(set)
        for row in rnas:
            for alias in row["aliases"]:
                self.of_alias[alias.lower()] |= set(row["pmids"])
        self.faults, self.hang, self.page, self.short = faults, hang, page, short
        self.without_abstract, self.retracted = set(without_abstract), set(retracted)
        self.draw, self.lock = random.Random(seed), threading.Lock()
        self.events, self.requests = Counter(), Counter()
        self.agents = set()
        self.addresses = {name: f"{self.address}/{name}" for name in ("ebi", "rnacentral", "export", "europe_pmc")}

    def respond(self, handler, body):
        url = urlsplit(handler.path)
        _, service, *path = url.path.split("/")
        params = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.lock:
            fault = self.draw.choice(KINDS) if self.draw.random() < self.faults else "none"
            self.events[fault] += 1
            self.requests[service] += 1
            self.agents.add(handler.headers["User-Agent"])
        if fault == "429":
            return send(handler, 429, {}, {"Retry-After": "0.05"})
        if fault == "500":
            return send(handler, 500, {})
        if fault == "slow":
            time.sleep(self.hang)
        if fault == "error inside":
            return send(handler, 200, {"errCode": 500, "errMsg": "Internal trouble"})
        answer = getattr(self, service)(path, params, body.decode(), fault)
        if answer is None:
            return send(handler, 404, {"detail": "Not found."})
        text = json.dumps(answer)
        send(handler, 200, text[: len(text) // 2] if fault == "cut" else text)

    def ebi(self, path, params, body, fault):
        query = params["query"]
        if path[0] == "rnacentral":
            rows = [
                {
                    "id": rna_id,
                    "source": "rnacentral",
                    "fields": {
                        "description": [row["name"]],
                        "rna_type": ["pre_miRNA"],
                        "length": [str(len(row["sequence"]))],
                        "has_lit_scan": ["True"],
                    },
                }
                for rna_id, row in sorted(self.rnas.items())
            ]
            return self.paged(rows, params, fault, self.short)
        if "entry_type:metadata" in query:
            rna_id = query.split('primary_id:"')[1].split('"')[0]
            names = self.rnas[rna_id]["aliases"] if rna_id in self.rnas else []
            entries = [
                {"id": f"metadata_{i}", "source": "rnacentral-litscan", "fields": {"job_id": [name.lower()]}}
                for i, name in enumerate([*names, "rrna"])
            ]
            return {
                "hitCount": len(entries),
                "entries": entries if params["searchposition"] == "0" else [],
                "facets": [],
            }
        alias = query.split('job_id:"')[1].split('"')[0]
        entries = []
        for pmid in sorted(self.of_alias.get(alias, ())):
            row = self.papers[pmid]
            fields = {key: [str(row[key])] for key in ("pmid", "pmcid", "year", "title")} | {"job_id": [alias]}
            fields["abstract"] = [] if pmid in self.without_abstract else [row["abstract"]]
            entries.append({"id": f"{alias}_{row['pmcid']}", "source": "rnacentral-litscan", "fields": fields})
        return self.paged(entries, params, fault)

    def paged(self, rows, params, fault, short=0):
        """EBI Search's pages: the cursor is the last id; a faulty page gives the cursor it was asked with."""
        after = params["searchposition"]
        rows_left = [row for row in rows if after == "0" or row["id"] > after]
        size = min(int(params["size"]), self.page)
        page = rows_left[:size]
        answer = {"hitCount": len(rows) + short, "entries": page, "facets": []}
        if len(rows_left) > size:
            answer["searchPosition"] = after if fault == "repeat" and after != "0" else page[-1]["id"]
        return answer

    def rnacentral(self, path, params, body, fault):
        if path[0] == "litsumm" or len(path) == 4:
            return self.curated(path, params)
        if len(path) == 2:
            row = next(row for row in self.rnas.values() if row["rna_id"].startswith(path[1]))
            return {"rnacentral_id": path[1], "md5": row["md5"], "sequence": row["sequence"]}
        row = self.rnas.get(f"{path[1]}_{path[2]}")
        if row is None or row.get("gone"):
            return None
        return {
            "rnacentral_id": row["rna_id"],
            "sequence": row["sequence"],
            "taxid": 9606,
            "length": len(row["sequence"]),
            "description": row["name"],
            "species": "Homo sapiens",
            "genes": [],
            "rna_type": "pre_miRNA",
            "is_active": True,
            "publications": 1,
        }

    def curated(self, path, params):
        """LitSumm's summary, Rfam's hit and the Gene Ontology's terms of an RNA; every third RNA has no summary."""
        row = self.rnas[params["urs"] if path[0] == "litsumm" else f"{path[1]}_{path[3]}"]
        if path[0] == "litsumm":
            first = self.papers[row["pmids"][0]]["pmcid"]
            summary = (
                f"WARNING: This summary was generated by AI. MIR1 is of use in medicine (NSCLC) [{first}]. It was "
                f"seen elsewhere [{first}, PMC999999999]. Overall, these findings matter."
            )
            found = [{"rna_id": "mir1", "display_id": "MIR1", "primary_id": row["rna_id"], "summary": summary}]
            found = [] if int(row["rna_id"][3:13], 16) % 3 == 2 else found
            return {"count": len(found), "next": None, "previous": None, "results": found}
        if path[2] == "rfam-hits":
            model = {"rfam_model_id": "RF00027", "short_name": "let-7", "long_name": "let-7 microRNA precursor"}
            hit = {"sequence_start": 1, "sequence_stop": 60, "sequence_completeness": 1.0, "rfam_model": model}
            return {"count": 1, "next": None, "previous": None, "results": [hit]}
        return [
            {
                "rna_id": row["rna_id"],
                "upi": path[1],
                "taxid": 9606,
                "go_term_id": "GO:0035195",
                "go_term_name": "miRNA-mediated gene silencing",
                "qualifier": "involved_in",
                "assigned_by": "BHF-UCL",
                "evidence_code_id": "ECO:0000314",
                "evidence_code_name": "direct assay evidence",
                "extensions": {},
            }
        ]

    def export(self, path, params, body, fault):
        if path[0] == "submit":
            return {"task_id": "t1", "data_type": "json"}
        if path[0] == "status":
            self.requests["polls"] += 1
            return {"task_id": "t1", "state": "SUCCESS" if self.requests["polls"] > 2 else "RUNNING"}
        rows = [
            {
                "rnacentral_id": rna_id,
                "taxid": 9606,
                "description": row["name"],
                "rna_type": "pre_miRNA",
                "so_rna_type": None,
                "sequence": row["sequence"].replace("U", "T"),
            }
            for rna_id, row in self.rnas.items()
        ]
        return {"job": "t1", "rnacentral_version": "25", "results": rows}

    def europe_pmc(self, path, params, body, fault):
        if path[0] == "status-update-search":
            ids = [row["extId"] for row in json.loads(body)["ids"]]
            found = [one for one in ids if one.removeprefix("PMC") in self.retracted]
            return {
                "articlesWithStatusUpdate": [
                    {"src": "PMC", "extId": one, "statusUpdates": ["RETRACTED"]} for one in found
                ]
            }
        form = {key: values[0] for key, values in parse_qs(body).items()}
        wanted = [part.removeprefix("PMCID:PMC") for part in form["query"].split(" OR ")]
        rows = [self.papers[pmid] for pmid in wanted if pmid in self.papers]
        start = 0 if form["cursorMark"] == "*" else int(form["cursorMark"])
        page = rows[start : start + 40]
        results = [
            {
                "id": row["pmid"],
                "source": "MED",
                "pmid": row["pmid"],
                "pmcid": row["pmcid"],
                "title": row["title"],
                "abstractText": f"<h4>Aim</h4>{row['abstract']}",
                "pubYear": "2015",
                "isOpenAccess": "Y",
            }
            for row in page
        ]
        # past the end the cursor repeats, as the service's does
        cursor = str(start + len(page)) if page else form["cursorMark"]
        return {"version": "6.9", "hitCount": len(rows), "nextCursorMark": cursor, "resultList": {"result": results}}
