"""`rnagpt chat --web`: the conversation in a page on this machine (Gradio).

Whatever comes from a file, a person or the model is shown as text, never as markup.
"""

import html
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from dataset_builder.facts_table.fact_answers import type_name
from rnagpt.chat.conversation import Conversation
from rnagpt.chat.fold_drawing import drawing
from rnagpt.chat.transcript import NOTICE, exported
from rnagpt.known_rnas.base import SHOWN_PAPERS, page_of_paper, paper_name
from rnagpt.serving.confidence import Evidence
from rnagpt.serving.decoding import Sampling
from rnagpt.serving.rna_reading import check_lengths, read_rnas
from rnagpt.serving.worker import Worker
from rnagpt_core.errors import UserError
from rnagpt_core.safe_text import one_line, printable
from rnagpt_core.sequences import MAX_COMPARED, Record, read_fasta

MAX_BYTES = 10_000_000  # of an upload, also once unpacked
MAX_RECORDS = 1000
MAX_QUESTION = 4000  # characters
LISTED = 200  # records offered for choosing
QUESTIONS = ("What type of RNA is this?", "Which organism group is it from?", "What does this RNA do?")
EXAMPLES = (
    Record("tRNA-Phe", "yeast", "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA"),
    Record("hsa-mir-21", "human, hairpin", "UGUCGGGUAGCUUAUCAGACUGAUGUUGACUGUUGAAUCUCAUGGCAACACCAGUCGAUGGGCUGUCUGACA"),
)
STYLE = """
.gradio-container { max-width: 1100px !important; margin: 0 auto !important; }
svg.fold { width: 100%; max-height: 340px; }
svg.fold text { font: 10px ui-monospace, monospace; fill: #222; stroke: #fff; stroke-width: 3; paint-order: stroke; }
svg.fold text.end { font-weight: 700; fill: #3b6ea5; }
svg.fold .backbone { fill: none; stroke: #999; stroke-width: 1.2; }
svg.fold .basepairs { stroke: #3b6ea5; stroke-width: 2.4; }
.card table { width: 100%; table-layout: fixed; border-collapse: collapse; border: 0; margin: 0 0 1em; }
.card tr { border: 0; border-bottom: 1px solid var(--border-color-primary); }
.card th, .card td { border: 0; padding: .4em 0; vertical-align: top; overflow-wrap: anywhere; }
.card th { text-align: left; font-weight: 600; width: 42%; padding-right: .6em; }
.said, #beside { overflow-wrap: anywhere; }
#beside ul { padding-left: 1.2em; }
#beside a { padding: 0; }
#told:not(:has(p)), #status:not(:has(p)), #beside:not(:has(p)), #upload .icon-wrap { display: none; }
p[role=alert], p.unsure { border-left: 4px solid #c77700; padding: .1em 0 .1em .7em; overflow-wrap: anywhere; }
@media (max-width: 640px) { svg.fold { max-height: 220px; } }
"""
# this machine only; nothing is sent elsewhere (nor are fonts fetched), and Node.js is not looked for
LAUNCH = {"server_name": "127.0.0.1", "share": False, "enable_monitoring": False, "ssr_mode": False, "css": STYLE}
LAUNCH |= {"quiet": True, "prevent_thread_lock": True, "max_file_size": MAX_BYTES, "footer_links": []}
LAUNCH["theme"] = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def run_web(engine, records: list[Record], sampling: Sampling, evidence: Evidence, port: int, note: str = "") -> int:
    """Serve the page on 127.0.0.1 until Ctrl-C or SIGTERM; `note` stands on it and says what the model is."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Worker(engine) as worker, tempfile.TemporaryDirectory(prefix="rnagpt-") as folder:
        page = Page(worker, records, sampling, evidence, Path(folder), note)
        try:
            _, address, _ = page.build().launch(**LAUNCH, server_port=port or None)
        except OSError:
            raise UserError(f"port {port} cannot be used: give another --port") from None
        print(f"open {address} in a browser (Ctrl-C ends)", file=sys.stderr, flush=True)
        ended.wait()
    return 0


@dataclass
class Page:
    """The page's parts and what they do. What belongs to one visitor is in `gradio.State`.

    State of a visitor: {"records": {id: Record}, "chosen": [ids], "messages": [turns]}.
    """

    worker: Worker
    records: list[Record]  # at hand when the page opens
    sampling: Sampling
    evidence: Evidence
    folder: Path  # for files to be saved
    note: str = ""  # what the model is

    def build(self) -> gr.Blocks:
        """The page."""
        note = f" This is a {self.note}." if self.note else ""
        with gr.Blocks(title="RNA-GPT", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True) as page:
            state = gr.State({"records": {}, "chosen": [], "messages": []})
            gr.HTML(f"<h1>Ask about an RNA</h1><p>{NOTICE}{html.escape(note)}</p>", padding=False)
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    upload = gr.File(
                        label="FASTA file (plain or .gz)", file_count="single", height=140, elem_id="upload"
                    )
                    typed = gr.Textbox(
                        label="or a sequence, FASTA text, RNAcentral id",
                        lines=2,
                        max_lines=6,
                        elem_id="typed",
                        placeholder="GCGGAUUUAGC... or URS000047C79B_9606",
                    )
                    with gr.Row(equal_height=True):
                        read = gr.Button("Read", elem_id="read", min_width=80)
                        examples = [
                            gr.Button(f"Example: {example.rna_id}", min_width=80, size="sm") for example in EXAMPLES
                        ]
                    reading = gr.HTML(elem_id="told", padding=False)
                    chosen = gr.Dropdown(
                        label=f"RNA (choose up to {MAX_COMPARED} to compare)",
                        multiselect=True,
                        max_choices=MAX_COMPARED,
                        visible=False,
                        elem_id="chosen",
                    )
                    card = gr.HTML(elem_id="card", elem_classes="card")
                with gr.Column(scale=3, min_width=300):
                    chat = gr.Chatbot(
                        label="Conversation",
                        render_markdown=False,
                        sanitize_html=True,
                        height=360,
                        buttons=[],
                        feedback_options=None,
                        elem_id="chat",
                        elem_classes="said",
                        allow_tags=False,
                        placeholder="Give an RNA, then ask about it.",
                    )
                    question = gr.Textbox(
                        label="Question",
                        lines=1,
                        max_length=MAX_QUESTION,
                        elem_id="question",
                        placeholder="What type of RNA is this?",
                    )
                    status = gr.HTML(elem_id="status", padding=False)
                    with gr.Row(equal_height=True):
                        ask = gr.Button("Ask", variant="primary", elem_id="ask", min_width=80)
                        stop = gr.Button("Stop", elem_id="stop", min_width=80)
                        new = gr.Button("Start over", elem_id="new", min_width=80)
                    with gr.Row(equal_height=True):
                        suggested = [gr.Button(text, size="sm", min_width=80) for text in QUESTIONS]
                    beside = gr.HTML(elem_id="beside", padding=False)
                    with gr.Row():
                        save = {"interactive": False, "size": "sm"}
                        save_md = gr.DownloadButton("Save as Markdown", elem_id="save-md", **save)
                        save_json = gr.DownloadButton("Save as JSON", elem_id="save-json", **save)

            about = [state, chosen, card, chat, beside, reading]
            upload.upload(self.read_file, [upload, state], about)
            read.click(self.read_text, [typed, state], about)
            typed.submit(self.read_text, [typed, state], about)
            for button, example in zip(examples, EXAMPLES, strict=True):
                button.click(lambda state, example=example: self.take([example], state), [state], about)
            chosen.input(self.choose, [chosen, state], about)
            answering = [state, chat, beside, status, question, save_md, save_json]
            how = {"concurrency_limit": self.worker.engine.max_answers, "show_progress": "minimal"}
            triggers = (ask.click, question.submit)
            events = [trigger(self.ask, [question, state], answering, **how) for trigger in triggers]
            for button, text in zip(suggested, QUESTIONS, strict=True):
                events.append(button.click(partial(self.ask, text), [state], answering, **how))
            stop.click(None, cancels=events)
            told = [state, chat, beside, status]
            for clear in (new.click, chat.clear):  # the RNAs stay
                clear(lambda state: [{**state, "messages": []}, [], "", notice("")], [state], told, cancels=events)
            if self.records:
                page.load(lambda state: self.take(self.records, state), [state], about)
        return page.queue(max_size=64)

    # --- RNAs

    def read_file(self, path: str | None, state: dict) -> list:
        """An uploaded file's RNAs."""
        if path is None:
            return self.unchanged(state, "")
        try:
            return self.take(read_fasta(path, MAX_BYTES, MAX_RECORDS), state)
        except UserError as error:
            # the upload lies in a temporary folder whose name says nothing
            return self.unchanged(state, str(error).replace(str(path), Path(path).name))

    def read_text(self, text: str, state: dict) -> list:
        """A typed or pasted RNA."""
        try:
            if len(text) > MAX_BYTES:
                raise UserError(f"the text is longer than {MAX_BYTES:,} characters: upload a part of it")
            return self.take(read_rnas(text, "the text", "my RNA", MAX_RECORDS), state)
        except UserError as error:
            return self.unchanged(state, str(error))

    def take(self, records: list[Record], state: dict) -> list:
        """These are the RNAs now; the first is asked about."""
        known = {record.rna_id: record for record in records}
        if len(records) == 1:
            try:
                check_lengths(records, self.worker.engine.processor, self.worker.engine.context)
            except UserError as error:  # the RNA at hand stays
                return self.unchanged(state, str(error))
        return self.choose([records[0].rna_id], {"records": known, "chosen": [], "messages": []})

    def choose(self, ids: list[str], state: dict) -> list:
        """Ask about these of the RNAs at hand; the conversation begins again."""
        chosen = [state["records"][rna_id] for rna_id in ids if rna_id in state["records"]][:MAX_COMPARED]
        names = list(state["records"])
        listed = {"choices": names[:LISTED], "visible": len(names) > 1}
        try:
            check_lengths(chosen, self.worker.engine.processor, self.worker.engine.context)
        except UserError as error:  # of a new file another record may be short enough
            about = [gr.skip()] * 3 if state["chosen"] else ["", [], ""]
            return [state, gr.Dropdown(value=state["chosen"], **listed), *about, notice(str(error))]
        state = {**state, "chosen": [record.rna_id for record in chosen], "messages": []}
        more = f"The first {LISTED} of {len(names):,} records can be chosen." if len(names) > LISTED else ""
        cards = "".join(map(self.card, chosen))
        return [state, gr.Dropdown(value=state["chosen"], **listed), cards, [], "", notice(more)]

    def unchanged(self, state: dict, sentence: str) -> list:
        """Everything as it was, and what went wrong."""
        return [state, *[gr.skip()] * 4, notice(sentence)]

    def card(self, record: Record) -> str:
        """What can be said of an RNA without the model."""
        letters = sum(record.sequence.count(letter) for letter in "ACGU") or 1
        gc = (record.sequence.count("G") + record.sequence.count("C")) / letters
        name = html.escape(one_line(f"{record.rna_id} {record.description}"))
        closest = self.evidence.closest(record.sequence)
        kinds = dict.fromkeys(type_name(neighbour.rna.rna_type) for neighbour in closest)
        rows = [
            ("RNA", name),
            ("Length", f"{len(record):,} nt"),
            ("GC", f"{gc:.0%}"),
            ("Type of the closest known RNAs", html.escape(", ".join(kinds)) or "none is close"),
        ]
        table = "".join(f'<tr><th scope="row">{head}</th><td>{cell}</td></tr>' for head, cell in rows)
        return f"<table>{table}</table>{drawing(record.sequence, one_line(record.rna_id))}"

    # --- questions

    def ask(self, question: str, state: dict) -> Iterator[list]:
        """The answer as it grows, then what lies beside it."""
        files = [gr.skip(), gr.skip()]
        conversation = Conversation(self.worker.engine)
        conversation.rnas = [state["records"][rna_id] for rna_id in state["chosen"]]
        conversation.messages = state["messages"]
        pieces: queue.Queue[str | None] = queue.Queue()
        try:
            turns, answer = conversation.prepare(
                question, self.sampling, stream_to=pieces.put, confidence=True, when_done=lambda _: pieces.put(None)
            )
        except UserError as error:
            yield [state, escaped(state["messages"]), gr.skip(), notice(str(error)), gr.skip(), *files]
            return
        self.worker.submit(answer)
        growing, text = {"role": "assistant", "content": "..."}, ""
        try:
            yield [state, escaped([*turns, growing]), "", notice(""), "", *files]
            while (piece := pieces.get()) is not None:
                growing["content"] = text = text + piece
                yield [state, escaped([*turns, growing]), "", notice(""), gr.skip(), *files]
        finally:
            answer.cancel()  # the visitor pressed Stop or left; a finished answer does not mind
        if answer.error is not None:
            yield [state, escaped(state["messages"]), "", notice("answering failed: ask again"), gr.skip(), *files]
            return
        conversation.add(turns, answer)
        state = {**state, "messages": conversation.messages}
        remark = "the answer was cut at its longest length" if answer.finish_reason == "length" else ""
        yield [
            state,
            escaped(conversation.messages),
            self.beside(answer, conversation.rnas),
            notice(remark if answer.text.strip() else "the model gave no answer"),
            gr.skip(),
            *self.saved(conversation),
        ]

    def beside(self, answer, rnas: list[Record]) -> str:
        """The answer's confidence and the closest known RNAs."""
        lines = []
        if confidence := self.evidence.confidence(answer):
            mark = ' class="unsure"' if confidence.abstains else ""
            lines.append(f"<p{mark}>The last answer: {html.escape(confidence.described())}.</p>")
        for rna in rnas:
            closest = self.evidence.closest(rna.sequence)
            about = f" to {html.escape(one_line(rna.rna_id))}" if len(rnas) > 1 else ""
            if closest:
                items = "".join(f"<li>{self.linked(neighbour)}</li>" for neighbour in closest)
                lines.append(f"<p>Closest known RNAs{about} (looked up, not shown to the model):</p><ul>{items}</ul>")
            else:
                lines.append(f"<p>No known RNA is close{about}.</p>")
        return "".join(lines)

    def linked(self, neighbour) -> str:
        """A known RNA in words, with links to its page and to the papers on it, where there are any."""

        def linked(text: str, address: str) -> str:
            return f'<a href="{html.escape(address)}" rel="noreferrer" target="_blank">{html.escape(text)}</a>'

        parts, pmids = [html.escape(neighbour.described())], neighbour.rna.pmids
        if neighbour.rna.page:
            parts.append(linked("its page", neighbour.rna.page))
        parts += [linked(paper_name(pmid), page_of_paper(pmid)) for pmid in pmids[:SHOWN_PAPERS]]
        more = f" and {len(pmids) - SHOWN_PAPERS} more papers" if len(pmids) > SHOWN_PAPERS else ""
        return ", ".join(parts) + more

    def saved(self, conversation: Conversation) -> list:
        """Download buttons with the conversation so far."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        buttons = []
        for suffix in (".md", ".json"):
            path = folder / f"conversation{suffix}"
            path.write_text(exported(conversation.rnas, conversation.messages, suffix), encoding="utf-8")
            buttons.append(gr.DownloadButton(value=str(path), interactive=True))
        return buttons


def escaped(messages: list[dict]) -> list[dict]:
    """Turns for the chat component, which reads a text as HTML (and drops tags it does not like): escaped for it."""
    return [{**turn, "content": html.escape(printable(turn["content"]), quote=False)} for turn in messages]


def notice(sentence: str) -> str:
    """A sentence for the person, beside what it is about; read aloud by screen readers."""
    return f'<p role="alert">{html.escape(one_line(sentence))}</p>' if sentence else ""
