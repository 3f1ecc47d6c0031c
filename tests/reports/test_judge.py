"""The page to judge on: what is in it, its functions run by node, and the whole of it driven in a browser."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sketchscale.errors import InputError
from sketchscale.objects.annotation.examples import read_marks
from sketchscale.reports.judge import JudgeClass, JudgeItem, JudgePage, outlined, page_digest, render_judge
from sketchscale.reports.pictures import make_picture
from tests.reports.test_html import HOSTILE, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")
COLUMNS = ("image", "label", "class", "reason", "rank")


def picture():
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 6:14] = 1
    return outlined(make_picture(np.full((20, 20, 3), 90, np.uint8), labels, width=40))


def a_page(n: int = 4, name: str = "plate.zarr", **more: Any) -> JudgePage:
    items = tuple(
        JudgeItem(row=(name, str(10 + i), "", "random", str(i + 1)), picture=picture(), caption=f"{name} {i}")
        for i in range(n)
    )
    classes = (JudgeClass(name="round", color="#17b890"), JudgeClass(name="long, thin", color="#f59f00"))
    return JudgePage(**{"title": "4 nuclei", "columns": COLUMNS, "items": items, "classes": classes, **more})


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found
    parsed: dict[str, Any] = json.loads(found[1])
    return parsed


def test_one_file_that_asks_for_nothing_and_runs_one_script() -> None:
    html = render_judge(a_page())
    page = Page(html)
    assert not [v for k, v in page.attributes if k in ("src", "href", "srcset") or v.startswith("http")]
    assert "http:" not in html
    assert "https:" not in html
    assert page.tags.count("script") == 2
    script = html[html.rindex("<script>") + 8 : html.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = dict(page.attributes)["content"]
    policies = [v for k, v in page.attributes if k == "content" and "script-src" in v]
    assert policies == [f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]
    assert policy
    assert render_judge(a_page()) == html


def test_hostile_names_are_shown_and_never_run() -> None:
    classes = (JudgeClass(name=HOSTILE, color="#000000"),)
    html = render_judge(a_page(name=HOSTILE, title=HOSTILE, classes=classes, note=HOSTILE, file=HOSTILE))
    page = Page(html)
    assert page.tags.count("script") == 2
    assert "onerror" not in {name for name, _ in page.attributes}
    assert html.count("<script>alert") == 0
    data = data_of(html)
    assert (data["classes"][0]["name"], data["rows"][0][0], data["file"]) == (HOSTILE, HOSTILE, HOSTILE)


def test_every_object_has_its_picture_and_its_outline_in_no_class_colour() -> None:
    data = data_of(render_judge(a_page()))
    assert len(data["items"]) == 4
    layer = base64.b64decode(data["items"][0]["layer"].partition(",")[2])
    with Image.open(io.BytesIO(layer)) as image:
        pixels = np.array(image.convert("RGBA"))
    colors = {tuple(c) for c in pixels.reshape(-1, 4) if c[3]}
    assert colors == {(0, 0xD5, 0xFF, 255)}
    assert pixels[0, 0, 3] == 0


def test_what_is_kept_belongs_to_the_proposals_not_to_classes_or_title() -> None:
    assert page_digest(a_page()) == page_digest(a_page(title="other", classes=()))
    assert page_digest(a_page()) != page_digest(a_page(3))
    assert page_digest(a_page()) != page_digest(a_page(name="other.zarr"))


def test_a_page_needs_objects_and_a_class_column() -> None:
    for wrong in ({"items": ()}, {"columns": ("image", "label", "klass", "reason", "rank")}):
        with pytest.raises(InputError, match="expected: an object to judge, and a column class"):
            a_page(**wrong)
    with pytest.raises(InputError, match="one value per column"):
        a_page(columns=("image", "class"))


def in_node(program: str) -> Any:
    if NODE is None:
        pytest.skip("node is absent: the page's functions are run by it")
    script = files("sketchscale.reports").joinpath("judge.js").read_text("utf-8")
    done = subprocess.run(
        [NODE, "-"], input=f"{script}\n{program}", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_giving_undoing_and_going_on() -> None:
    result = in_node("""
        let s = judge.start([{name: "a", color: "#111111"}]);
        const seen = [];
        const look = () => seen.push([{...s.marks}, s.at, s.history.length]);
        s = judge.onward(judge.assign(s, 0, "a"), 3); look();
        s = judge.onward(judge.assign(s, 1, "b"), 3); look();
        s = judge.assign(s, 1, "a"); look();
        s = judge.undo(s); look();
        s = judge.undo(judge.undo(s)); look();
        s = judge.undo(s); look();
        s = judge.onward({...s, at: 2, marks: {0: "a"}}, 3); look();
        s = judge.onward({...s, at: 2, marks: {0: "a", 1: "a", 2: "a"}}, 3); look();
        console.log(JSON.stringify(seen));
    """)
    assert result == [
        [{"0": "a"}, 1, 1],
        [{"0": "a", "1": "b"}, 2, 2],
        [{"0": "a", "1": "a"}, 2, 3],
        [{"0": "a", "1": "b"}, 1, 2],
        [{}, 0, 0],
        [{}, 0, 0],
        [{"0": "a"}, 1, 0],
        [{"0": "a", "1": "a", "2": "a"}, 2, 0],
    ]


def test_classes_are_added_once_and_words_with_a_meaning_are_none() -> None:
    names = in_node("""
        let s = judge.start([{name: "a", color: "#111111"}]);
        for (const name of ["b", " b ", "", "  ", "undo", "Unsure", "none", "a", "<i>"])
          s = judge.addClass(s, name, "#222222");
        console.log(JSON.stringify(s.classes.map((one) => one.name)));
    """)
    assert names == ["a", "b", "<i>"]


def test_the_csv_is_what_training_and_counting_read(tmp_path: Path) -> None:
    rows = [["a, b.zarr", "7", "", 'he said "x"'], ["c.zarr", "8", "", " s "], ["c.zarr", "9", "", "two\\nlines"]]
    text = in_node(f"""
        let s = judge.start([{{name: "long, thin", color: "#f59f00"}}]);
        s = judge.assign(judge.assign(s, 0, "long, thin"), 2, "unsure");
        console.log(JSON.stringify(judge.toCsv(["image", "label", "class", "reason"], {json.dumps(rows)}, s)));
    """)
    assert list(csv.reader(io.StringIO(text))) == [
        ["image", "label", "class", "reason", "color"],
        [*rows[0][:2], "long, thin", rows[0][3], "#f59f00"],
        [*rows[2][:2], "unsure", rows[2][3], ""],
    ]
    path = tmp_path / "judged.csv"
    path.write_text(text, encoding="utf-8", newline="")
    marks = read_marks(path)
    assert [(m.image, m.label, m.name, m.color) for m in marks] == [
        ("a, b.zarr", 7, "long, thin", "#f59f00"),
        ("c.zarr", 9, "unsure", ""),
    ]


def test_what_was_kept_is_checked_before_it_is_used() -> None:
    good = {"marks": {"1": "a"}, "history": [[1, None]], "classes": [{"name": "a", "color": "#111111"}], "at": 1}
    bad: list[Any] = [
        None, 3, {}, {**good, "at": 5}, {**good, "marks": {"7": "a"}}, {**good, "marks": {"1": 3}},
        {**good, "classes": [{"name": "a", "color": "red;x"}]}, {**good, "history": [[9, None]]},
    ]  # fmt: skip
    kept = in_node(f"""
        const found = {json.dumps([good, *bad])}.map((one) => judge.restore(JSON.stringify(one), 3));
        console.log(JSON.stringify([...found, judge.restore("{{", 3), judge.restore(null, 3)]));
    """)
    assert kept == [good] + [None] * (len(bad) + 2)


def shown(tmp_path: Path, html: str) -> str:
    """The page as a browser has it after its script ran."""
    if CHROMIUM is None:
        pytest.skip("no chromium: the page is driven in it")
    path = tmp_path / "judge.html"
    path.write_text(html, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    try:
        done = subprocess.run(
            [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=90, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("chromium does not start here within 90 s")
    return done.stdout


KEYS = """<script>
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
["1", "2", "u", "0", "-", "ArrowLeft", "o"].forEach(press);
document.getElementById("name").value = "odd <b>";
document.getElementById("add").requestSubmit();
document.body.dataset.kept = localStorage.getItem(Object.keys(localStorage)[0]);
</script></body>"""


def test_keys_classes_undo_and_autosave_in_a_browser(tmp_path: Path) -> None:
    """The policy is taken out of this copy, because it forbids the test's own script."""
    html = re.sub(r"<meta http-equiv[^>]*/>", "", render_judge(a_page())).replace("</body>", KEYS)
    dom = shown(tmp_path, html)
    kept = re.search(r'data-kept="([^"]*)"', dom)
    assert kept, dom[-500:]
    state = json.loads(kept[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">"))
    assert state["marks"] == {"0": "round", "1": "unsure", "2": "none"}
    assert state["at"] == 2
    assert [one["name"] for one in state["classes"]] == ["round", "long, thin", "odd <b>"]
    assert '<b id="done">3</b>' in dom
    assert "<span>odd &lt;b&gt;</span>" in dom
    assert 'id="given"><i aria-hidden="true"></i>not an object</b>' in dom


def test_the_page_runs_under_its_own_policy(tmp_path: Path) -> None:
    dom = shown(tmp_path, render_judge(a_page()))
    assert dom.count('<button type="button" tabindex="-1"') == 4
    assert "<span>long, thin</span>" in dom
    assert 'id="picture" alt="Object 1: plate.zarr 0"' in dom
