"""scripts/creation/recognition.py, inventory.py, fitting.py, json_schema.py: which task type rows are of, with its
columns, options and sizes."""

from __future__ import annotations

import csv
import io
import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creation import fitting, inventory, json_schema, proposal, reading, recognition, rendering, sources
from creation.recognition import View
from creation.sources import Source
from task_folder import BUNDLE, jsonl, write
from tasklib import schema, task_types
from tasklib.documents import parse_yaml
from tasklib.reading.formats import file_format

N = 60
PEOPLE = ("王小明", "陳美玲", "林志豪")
PLACES = ("台北", "高雄")
TURNS = [{"role": "user", "content": "怎麼退貨？"}, {"role": "assistant", "content": "七天內都可以退。"}]
POLARITIES = ("Positive", "Negative", "Neutral")


def propose(folder, content, name="a.data", **answers):
    """The proposal for one file (rows, or its content) or for several (name -> content)."""
    files = content if isinstance(content, dict) else {name: content}
    for each, rows in files.items():
        write(folder / each, rows if isinstance(rows, str | bytes) else jsonl(*rows))
    result = reading.understand([Source("all", folder / each) for each in files], reading.Flags())
    assert result.problems == []
    return proposal.propose(sources.by_class(result.sources)[0], answers, None)


def table(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def named(k):
    return f"第{k}天，{PEOPLE[k % 3]}搭車去{PLACES[k % 2]}開會"


def span(text, part, label, **keys):
    names = {"start": "start", "end": "end", "label": "label"} | keys
    start = text.index(part)
    return {names["start"]: start, names["end"]: start + len(part), names["label"]: label}


def with_spans(k, **keys):
    text = named(k)
    return {
        "text": text,
        "entities": [span(text, PEOPLE[k % 3], "PER", **keys), span(text, PLACES[k % 2], "LOC", **keys)],
    }


def conll(n=N, between=" "):
    lines = []
    for k in range(n):
        person, place = PEOPLE[k % 3], PLACES[k % 2]
        tagged = [("第", "O"), (str(k), "O"), ("天", "O")]
        tagged += [(char, "B-PER" if at == 0 else "I-PER") for at, char in enumerate(person)]
        tagged += [("去", "O")] + [(char, "B-LOC" if at == 0 else "I-LOC") for at, char in enumerate(place)]
        lines += [f"{token}{between}{tag}" for token, tag in tagged] + [""]
    return "\n".join(lines) + "\n"


def reservoir(k):
    """(context, question, answer, its place)"""
    context, answer = f"第{k}座水庫位在山區，蓄水量是{k}萬噸。", f"{k}萬噸"
    return context, f"第{k}座水庫的蓄水量是多少？", answer, context.index(answer)


def squad(n=N):
    paragraphs = []
    for k in range(n):
        context, question, answer, start = reservoir(k)
        answers = [{"text": answer, "answer_start": start}]
        paragraphs.append({"context": context, "qas": [{"id": str(k), "question": question, "answers": answers}]})
    return json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": paragraphs}]}, ensure_ascii=False)


def rows(make, n=N):
    return [make(k) for k in range(n)]


# One row of each form, by its number.


def doccano(k):
    start = named(k).index(PEOPLE[k % 3])
    return {"data": named(k), "label": [[start, start + 3, "PER"]]}


def inclusive(k):
    found = span(named(k), PEOPLE[k % 3], "PER")
    return {"text": named(k), "entities": [{**found, "end": found["end"] - 1, "text": PEOPLE[k % 3]}]}


def tokens(k):
    tags = ["O", "O", "O", "B-PER", "I-PER", "I-PER"]
    return {"id": str(k), "tokens": ["第", str(k), "天", *PEOPLE[k % 3]], "ner_tags": tags}


def tagged(k):
    return {"text": f"第{k}天，<PER>{PEOPLE[k % 3]}</PER>搭車去<地點>{PLACES[k % 2]}</地點>開會"}


def financial(k):
    polarity, name = POLARITIES[k % 3], PEOPLE[k % 3]
    found = span(named(k), name, polarity)
    return {"content": named(k), "annotations": [{**found, "value": name, "tag": polarity}]}


def pairs(k):
    return {"text": named(k), "pairs": [{"entity": PEOPLE[k % 3], "sentiment": POLARITIES[k % 3].lower()}]}


def three_lines(k):
    return f"第 {k} 支 $T$ 很 好\n{('手機', '螢幕')[k % 2]}\n{POLARITIES[k % 2]}\n"


def of_entity(k):
    text = f"{PEOPLE[k % 3]}第{k}場表現亮眼，{PEOPLE[(k + 1) % 3]}失常"
    polarity = ("positive", "negative")[k // 3 % 2]
    return {"sentence": text, "entity": PEOPLE[(k + k // 3 % 2) % 3], "polarity": polarity}


def wide(k):
    aspects = {"口味": k % 4 - 2, "服務": (k + 1) % 4 - 2, "環境": k // 2 % 4 - 2}
    return {"編號": k, "評論": f"第{k}次來這家店，餐點和服務都值得一提", **aspects}


def stance(k, names=("target", "text", "stance"), sides=("FAVOR", "AGAINST", "NONE")):
    return dict(zip(names, (("核電", "公投")[k % 2], f"我覺得第{k}個理由最重要", sides[k % 3]), strict=True))


def chinese_stance(k):
    return stance(k, ("議題", "留言", "立場"), ("支持", "反對", "中立"))


def label_list(k):
    return {"text": f"第{k}則留言提到運費和包裝", "tags": [["運費"], ["運費", "包裝"], []][k % 3]}


def label_cell(k):
    return {"text": f"第{k}則留言提到運費和包裝", "label": ("運費", "包裝", "運費;包裝")[k % 3]}


def alpaca(k):
    return {"instruction": f"寫第{k}首詩", "input": "", "output": f"第{k}首詩的第一行，第二行，第三行" * 2}


def chat(k):
    return {"messages": [{**TURNS[0], "content": f"第{k}題？"}, TURNS[1]]}


def sharegpt(k):
    return {"conversations": [{"from": "human", "value": f"第{k}題？"}, {"from": "gpt", "value": "好"}]}


def article(k):
    text = f"第{k}篇報導。" + "記者昨天到現場採訪，居民說明經過。" * 3
    return {"article": text, "highlights": f"第{k}篇的重點"}


def flat_squad(k):
    context, question, answer, start = reservoir(k)
    return {"context": context, "question": question, "answers": {"text": [answer], "answer_start": [start]}}


def order(k):
    return {"text": f"訂單{k}：買了{k}個，寄到台北", "output": {"order": str(k), "count": k, "city": "台北"}}


def order_as_text(k):
    return {**order(k), "output": json.dumps(order(k)["output"], ensure_ascii=False)}


def preferred(k):
    return {"prompt": f"第{k}題", "chosen": f"好的回答{k}", "rejected": f"差的回答{k}"}


def ranked(k):
    sides = {side: {"from": "gpt", "value": f"{side}{k}"} for side in ("chosen", "rejected")}
    return {"conversations": [{"from": "human", "value": f"第{k}題"}], **sides}


def same(*names):
    return {name: name for name in names}


ENTITY = {"text": "text", "entity": "entity", "sentiment": "sentiment"}
QUESTION = same("context", "question", "answers")
MELT = {"columns": ["口味", "服務", "環境"], "entity": "aspect", "value": "polarity", "drop": ["-2"]}

# name -> (content, task type, fields, some options, keys of the file)
FORMS = {
    "spans": (rows(with_spans), "ner", same("text", "entities"), {"entity_types": same("LOC", "PER")}, {}),
    "Doccano": (rows(doccano), "ner", {"text": "data", "entities": "label"}, {"entity_types": same("PER")}, {}),
    "inclusive": (rows(inclusive), "ner", same("text", "entities"), {"offsets": {"end": "inclusive"}}, {}),
    "tokens": (rows(tokens), "ner", {"tokens": "tokens", "tags": "ner_tags"}, {"entity_types": same("PER")}, {}),
    "CoNLL": (conll(), "ner", same("tokens", "tags"), {"entity_types": same("LOC", "PER")}, {"format": "conll"}),
    "CoNLL with tabs": (conll(between="\t"), "ner", same("tokens", "tags"), {}, {"format": "conll"}),
    "tagged": (rows(tagged), "ner", {"tagged": "text"}, {"entity_types": same("PER", "地點")}, {}),
    "financial": (rows(financial), "entity_sentiment", {"text": "content", "entity": "value", "sentiment": "label"},
                  {"sentiments": same(*sorted(POLARITIES))}, {"explode": {"column": "annotations"}}),
    "pairs": (rows(pairs), "entity_sentiment_pairs", same("text", "pairs"),
              {"sentiments": same("negative", "neutral", "positive")}, {}),
    "three lines": ("".join(rows(three_lines)), "entity_sentiment", ENTITY,
                    {"sentiments": same("Negative", "Positive")}, {"format": "triplet"}),
    "entity": (table(rows(of_entity)), "entity_sentiment", {**ENTITY, "text": "sentence", "sentiment": "polarity"},
               {"sentiments": same("negative", "positive")}, {}),
    "wide": (table(rows(wide)), "entity_sentiment", {"text": "評論", "entity": "aspect", "sentiment": "polarity"},
             {"sentiments": {"-1": "負面", "0": "中性", "1": "正面"}, "mention": "free"}, {"melt": MELT}),
    "stance": (table(rows(stance)), "stance", same("text", "target", "stance"),
               {"favor": "FAVOR", "against": "AGAINST"}, {}),
    "Chinese stance": (table(rows(chinese_stance)), "stance", {"text": "留言", "target": "議題", "stance": "立場"},
                       {"favor": "支持", "against": "反對"}, {}),
    "label list": (rows(label_list), "multi_label_classification", {"text": "text", "labels": "tags"},
                   {"labels": same("包裝", "運費"), "allow_none": True}, {}),
    "label cell": (table(rows(label_cell)), "multi_label_classification", {"text": "text", "labels": "label"},
                   {"labels": same("包裝", "運費"), "separator": ";"}, {}),
    "prompt": ([{"prompt": f"第{k}題是什麼？", "response": f"第{k}個回答，寫得比較長。"} for k in range(N)],
               "generation", same("prompt", "response"), {}, {}),
    "Alpaca": (rows(alpaca), "generation", same("instruction", "output", "input"), {}, {}),
    "messages": (rows(chat), "generation", same("messages"), {}, {}),
    "ShareGPT": (rows(sharegpt), "generation", {"messages": "conversations"}, {}, {}),
    "summary": (rows(article), "generation", {"document": "article", "summary": "highlights"}, {}, {}),
    "SQuAD": (squad(), "generation", QUESTION, {}, {"format": "squad"}),
    "flat SQuAD": (rows(flat_squad), "generation", QUESTION, {}, {}),
    "objects": (rows(order), "extraction", same("text", "output"), {}, {}),
    "objects as text": (table(rows(order_as_text)), "extraction", same("text", "output"), {}, {}),
    "preference": (rows(preferred), "preference", same("prompt", "chosen", "rejected"), {}, {}),
    "ranked": (rows(ranked), "preference", same("conversations", "chosen", "rejected"), {}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_recognised_with_its_columns_and_options(tmp_path, name):
    content, wanted, fields, options, of_file = FORMS[name]
    found = propose(tmp_path, content)
    assert found.problems == [] and found.unreadable == [] and found.type == wanted
    assert found.fields == fields and {key: found.task[key] for key in options} == options
    kind = file_format(found.sources[0].path, "a", found.sources[0].spec()).kind
    assert {"format": kind, **found.sources[0].options}.items() >= of_file.items()
    assert found.why["type"] and json.dumps(found.shown(), ensure_ascii=False) and found.to_text()
    assert "unreadable_rows" not in {warning.code for warning in found.warnings}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_proposed_is_a_definition_that_the_schema_takes(tmp_path, name):
    found = propose(tmp_path, FORMS[name][0])
    files = sources.data_files(found.sources, sources.raw_names(found.sources))
    definition = {"name": "x", "task": found.task, "data": {"files": files, "fields": found.fields}}
    if found.instruction:
        definition["prompt"] = {"instruction": found.instruction}
    config = rendering.config_of({}, None, found.type, found.sizes)
    texts = rendering.render(definition, config)
    checked, run = rendering.checked(texts, None, {})
    assert checked.task.type == found.type
    assert checked.evaluation == schema.evaluation_model(found.type)()
    assert run.method == ("dpo" if found.type == "preference" else "sft")
    assert run.training.max_length >= 512 and run.generation.max_new_tokens >= 16


# What is equally good, and what the user said.


def test_spans_with_polarities_can_be_read_as_entities_and_as_pairs_with_a_flag(tmp_path):
    content = FORMS["financial"][0]
    found = propose(tmp_path, content)
    assert [option["value"] for option in found.candidates["type"]] == ["entity_sentiment_pairs", "ner"]
    assert all("--type" in option["why"] for option in found.candidates["type"])
    assert "other_reading" in {warning.code for warning in found.warnings}
    as_spans = propose(tmp_path, content, type="ner")
    assert as_spans.fields == {"text": "content", "entities": "annotations"} and as_spans.problems == []
    assert set(as_spans.labels) == set(POLARITIES)
    pairs = propose(tmp_path, content, type="entity_sentiment_pairs")
    assert pairs.fields == {"text": "content", "pairs": "annotations"} and pairs.problems == []


def test_roles_say_the_type(tmp_path):
    content = FORMS["entity"][0]
    found = propose(tmp_path, content, fields={"label": "polarity"})
    assert found.type == "classification" and found.fields == {"text": "sentence", "label": "polarity"}
    found = propose(tmp_path, content, fields={"prompt": "sentence", "response": "entity"})
    assert found.type == "generation" and found.why["type"] == "given"


def test_labels_of_the_answers_say_the_type(tmp_path):
    found = propose(tmp_path, FORMS["financial"][0], task={"entity_types": {"Positive": "P"}})
    assert found.type == "ner"


def test_given_labels_win_over_those_in_the_data(tmp_path):
    given_labels = {"PER": "人名", "LOC": "地名"}
    found = propose(tmp_path, FORMS["spans"][0], labels=given_labels)
    assert found.labels is None and found.counts == {"PER": N, "LOC": N}
    found = propose(tmp_path, FORMS["spans"][0], labels={"PER": "人名"})
    assert "labels_not_given" in {warning.code for warning in found.warnings}


def test_a_type_without_its_columns_is_refused_with_the_forms_and_the_flag(tmp_path):
    content = table(rows(lambda k: {"text": f"第{k}則新聞的內容", "label": "ab"[k % 2]}))
    (problem,) = propose(tmp_path, content, type="ner").problems
    assert problem.code == "missing_column" and "text + entities" in problem.message and "--fields" in problem.hint


def test_a_column_that_does_not_exist_is_named_with_the_nearest(tmp_path):
    found = propose(tmp_path, FORMS["spans"][0], type="ner", fields={"entities": "entity", "text": "text"})
    (problem,) = found.problems
    assert problem.code == "missing_column" and "did you mean 'entities'?" in problem.hint


def test_files_of_two_tasks_are_refused_with_what_each_is(tmp_path):
    files = {"a.jsonl": FORMS["spans"][0], "b.jsonl": FORMS["messages"][0]}
    (problem,) = propose(tmp_path, files).problems
    assert problem.code == "files_differ" and problem.file.endswith("b.jsonl")
    assert "ner" in problem.message and "generation" in problem.message


def test_an_empty_list_in_the_first_rows_does_not_hide_the_form(tmp_path):
    content = [{"text": f"第{k}句沒有名字", "entities": []} for k in range(9)] + rows(with_spans)
    assert propose(tmp_path, content).type == "ner"


def test_a_table_of_words_and_letters_is_no_conll():
    text = "".join(f"第{k}則 {'AB'[k % 2]}\n" for k in range(20))
    assert recognition.format_of(text) is None and recognition.format_of("a O\nb O\nc O\nd O\ne O\n") is None
    columns = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\ncall NN I-NP O\n. . O O\n"
    assert recognition.format_of("-DOCSTART- -X- O O\n\n" + columns) == "conll"


@pytest.mark.parametrize("type_", ["entity_sentiment", "stance"])
def test_a_company_beside_a_title_and_its_sentiment_is_no_entity(tmp_path, type_):
    content = table(
        rows(
            lambda k: {
                "公司": f"第{k % 7}電子",
                "標題": f"第{k}季營收公布，市場關注後續",
                "情感": ("利多", "利空")[k % 2],
            }
        )
    )
    found = propose(tmp_path, content)
    assert found.type == "classification" != type_


def test_a_column_that_is_called_stance_is_one_though_targets_hardly_repeat(tmp_path):
    companies = [stance(k) | {"target": f"company {k}"} for k in range(30)]
    assert propose(tmp_path, table(companies)).type == "stance"


STANCES = {  # how many rows have each stance -> favor, and what is said
    "a rare synonym": ({"支持": 30, "反對": 29, "贊成": 1}, "支持", "same_side"),
    "two usual synonyms": ({"支持": 20, "反對": 20, "贊成": 20}, None, "favor is one of 支持 (20), 贊成 (20)"),
    "only a rare word is known": ({"力挺": 30, "反對": 29, "贊成": 1}, None, "力挺 (30)"),
    "no word is known": ({"甲": 30, "乙": 30}, None, "favor is one of 乙 (30), 甲 (30); against is one of"),
}


@pytest.mark.parametrize("case", STANCES)
def test_the_sides_of_a_stance_are_told_together_with_the_rows_of_synonyms(tmp_path, case):
    counts, favor, said = STANCES[case]
    sides = [name for name, n in counts.items() for _ in range(n)]
    found = propose(tmp_path, table([chinese_stance(k) | {"立場": side} for k, side in enumerate(sides)]))
    assert found.type == "stance" and found.options.get("favor") == favor
    warnings = [f"{p.code} {p.file}:{p.line} {p.message}" for p in found.warnings]
    assert said in "\n".join([p.message for p in found.problems] + warnings) and len(found.problems) == (not favor)
    if case == "a rare synonym":
        given = {"favor": "支持", "against": "反對"}
        again = propose(tmp_path, (tmp_path / "a.data").read_text(encoding="utf-8"), task=given)
        assert "same_side" in [problem.code for problem in again.warnings]
        assert any(text.startswith(f"same_side {tmp_path / 'a.data'}:61") for text in warnings)


def test_one_rating_among_aspects_is_taken_when_its_column_is_named(tmp_path):
    content = FORMS["wide"][0]
    found = propose(tmp_path, content, fields={"label": "口味"}, labels={str(n): f"第{n}級" for n in range(-2, 2)})
    assert found.type == "classification" and found.fields == {"text": "評論", "label": "口味"}


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"meta": {"source": "web", "page": 3}}, "classification"),
        ({"keywords": ["運費", "包裝"]}, "classification"),
        ({"標註者A": -1, "標註者B": 1, "標註者C": 0}, "classification"),
        ({"entities": []}, "classification"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_stands_beside_a_text_and_its_label_does_not_make_another_task(tmp_path, more, wanted):
    content = rows(lambda k: {"text": f"第{k}則新聞的內容", "label": ("財經", "政治")[k % 2], **more})
    found = propose(tmp_path, content)
    assert found.problems == [] and found.type == wanted and found.fields == {"text": "text", "label": "label"}


def test_spans_beside_a_label_are_proposed_and_the_label_is_named_as_another_reading(tmp_path):
    found = propose(tmp_path, rows(lambda k: {**with_spans(k), "label": "ab"[k % 2]}))
    assert found.type == "ner" and [option["value"] for option in found.candidates["type"]] == ["classification"]
    found = propose(tmp_path, rows(lambda k: {**with_spans(k), "label": "ab"[k % 2]}), type="classification")
    assert found.fields == {"text": "text", "label": "label"}


def test_rows_of_one_text_can_be_read_as_one_answer(tmp_path):
    content = [
        {"text": f"第{k}餐，湯頭好但環境差", "entity": entity, "sentiment": polarity}
        for k in range(N)
        for entity, polarity in (("湯頭", "positive"), ("環境", "negative"))
    ]
    found = propose(tmp_path, content)
    assert found.type == "entity_sentiment" and found.candidates["type"][0]["value"] == "entity_sentiment_pairs"
    joint = propose(tmp_path, content, type="entity_sentiment_pairs")
    assert joint.problems == [] and joint.sources[0].options["collect"]["by"] == "text"
    assert joint.counts == {"negative": N, "positive": N}


# Labels of all rows.


def test_a_rare_entity_type_behind_the_sample_is_found(tmp_path):
    content = rows(with_spans, sources.SAMPLE_ROWS + 10)
    content[-1]["entities"][0]["label"] = "RARE"
    assert propose(tmp_path, content).counts["RARE"] == 1


@pytest.mark.parametrize(
    ("role", "value", "labels"),
    [
        ("labels", ["a", "b"], ["a", "b"]),
        ("labels", '["a", "b"]', ["a", "b"]),
        ("labels", [1, 2], ["1", "2"]),
        ("entities", [{"start": 0, "end": 1, "labels": ["PER"]}], ["PER"]),
        ("entities", [[0, 1, "PER"]], ["PER"]),
        ("tags", ["B-PER", "I-PER", "O", "B-PER", "B-PER", "I-LOC"], ["PER", "PER", "PER", "LOC"]),
        ("tags", ["S-PER", "B-LOC", "M-LOC", "E-LOC"], ["PER", "LOC"]),
        ("tagged", "<PER>王小明</PER>去[台北](LOC)", ["PER", "LOC"]),
        ("pairs", [{"entity": "a", "sentiment": "good"}, {"entity": "b", "polarity": 1}], ["good", "1"]),
        ("sentiment", -1, ["-1"]),
        ("sentiment", " ", []),
        ("sentiment", None, []),
        ("entities", "no list", []),
        ("tags", [1, None], []),
    ],
)
def test_labels_in_one_cell(role, value, labels):
    assert [label for label in inventory.labels_of(role, value) if label.strip()] == labels


def test_a_separator_is_found_and_prose_has_none():
    assert inventory.separator_of(["運費;包裝", "運費", "包裝;客服", "客服"] * 5) == ";"
    assert inventory.separator_of([f"第{k}句話，說了一件事；沒有標籤" for k in range(40)]) is None
    assert inventory.separator_of([]) is None


def test_numbers_of_a_scale_get_words_and_other_numbers_do_not():
    assert fitting.words_of_scale({"-2": 9, "-1": 1, "0": 1, "1": 3}, "en") == {
        "-2": "very negative", "-1": "negative", "0": "neutral", "1": "positive"}  # fmt: skip
    assert fitting.words_of_scale({"-1": 1, "1": 3}, "zh-TW") == {"-1": "負面", "1": "正面"}
    assert fitting.words_of_scale({"0": 1, "1": 3}, "en") is None
    assert fitting.words_of_scale({"-1": 1, "1": 3, "5": 1}, "en") is None


# Offsets.

CONVENTIONS = {
    "exclusive": (0, "utf-32-le", {}),
    "inclusive": (1, "utf-32-le", {"end": "inclusive"}),
    "exclusive UTF-16": (0, "utf-16-le", {"unit": "utf16"}),
    "inclusive UTF-16": (1, "utf-16-le", {"end": "inclusive", "unit": "utf16"}),
}


def with_offsets(convention):
    """The bundled example with offsets alone, as a tool of that convention writes them, and emoji."""
    inclusive, codec, _ = CONVENTIONS[convention]
    example, ner = BUNDLE / "templates/examples/ner", task_types.load("ner")
    answers = parse_yaml((example / "answers.yaml").read_text(encoding="utf-8"), "answers").data
    options = ner.Options.model_validate(answers["task"])
    for k, line in enumerate((example / "news.jsonl").read_text(encoding="utf-8").splitlines()):
        record, _ = ner.read_record(json.loads(line), options)
        before = "😀" if k % 2 else ""
        text, width = before + record.text, 4 if codec == "utf-32-le" else 2
        units = [len(text[:place].encode(codec)) // width for place in range(len(text) + 1)]
        found = [(e["start"] + len(before), e["end"] + len(before), e["type"]) for e in record.entities]
        yield {
            "text": text,
            "entities": [{"start": units[a], "end": units[b] - inclusive, "label": c} for a, b, c in found],
        }


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_offsets_without_words_are_read_in_the_convention_in_which_mentions_are_whole(tmp_path, convention):
    found = propose(tmp_path, list(with_offsets(convention)))
    assert found.type == "ner" and found.options.get("offsets", {}) == CONVENTIONS[convention][2]
    assert found.mentions and found.mentions == propose(tmp_path, list(with_offsets("exclusive"))).mentions
    assert repr(found.mentions[0]) in found.to_text()


# Schemas.


def test_a_schema_has_types_required_and_closed_sets():
    values = [
        {"id": str(k), "n": k, "price": k / 2 if k % 2 else k, "kind": "ab"[k % 2], "tags": ["x"], "paid": bool(k % 2),
         "note": None if k % 3 else "text", **({"extra": {"deep": 1}} if k % 5 == 0 else {})}
        for k in range(60)
    ]  # fmt: skip
    found = json_schema.infer(values)
    properties = found["properties"]
    assert found["type"] == "object" and found["additionalProperties"] is False
    assert found["required"] == ["id", "n", "price", "kind", "tags", "paid", "note"]
    assert properties["id"] == {"type": "string"} and properties["n"] == {"type": "integer"}
    assert properties["price"] == {"type": "number"} and properties["paid"] == {"type": "boolean"}
    assert properties["kind"] == {"type": "string", "enum": ["a", "b"]}
    assert properties["note"]["type"] == ["string", "null"] and properties["tags"]["items"] == {"type": "string"}
    assert properties["extra"]["properties"] == {"deep": {"type": "integer"}}


def test_few_rows_and_long_or_unique_values_make_no_closed_set():
    assert "enum" not in json_schema.infer(["a", "b"] * 3)
    assert "enum" not in json_schema.infer(["a"] * 50 + ["b"])
    assert "enum" not in json_schema.infer(["x" * 30, "y" * 30] * 50)


def invoice(k, **other):
    return {"賣方": f"第{k}行", "總金額": 100 + k, "日期": "2026-01-02", "地址": {"市": "台北"}} | other


ODD = {
    "another kind": (invoice(7, 總金額="NT$107"), "總金額 is of type string"),
    "a property missing": ({k: v for k, v in invoice(7).items() if k != "日期"}, "日期 is missing"),
    "another kind within": (invoice(7, 地址={"市": ["台北"]}), "地址.市 is of type array"),
    "a name mistyped": (
        {("總 金額" if k == "總金額" else k): v for k, v in invoice(7).items()},
        "總 金額 is hardly ever there, 總金額 is, 總金額 is missing",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_the_schema_is_not_widened_for_one_odd_object_which_is_named_with_its_line(tmp_path, case):
    one, why = ODD[case]
    rows = [{"text": f"第{k}張發票，請登錄", "output": one if k == 7 else invoice(k)} for k in range(80)]
    found = propose(tmp_path, rows)
    assert found.type == "extraction"
    assert found.options["json_schema"] == json_schema.infer([invoice(k) for k in range(80)])
    (warning,) = [problem for problem in found.warnings if problem.code == "odd_objects"]
    assert (warning.line, warning.message.partition("a.data:8 ")[2]) == (8, why)


@pytest.mark.parametrize(
    "objects",
    [
        [invoice(k, 總金額=1.5 if k == 7 else k) for k in range(80)],  # whole and other numbers
        [invoice(k, 日期=None if k == 7 else "2026-01-02") for k in range(80)],
        [invoice(k, **({"統編": "12345678"} if k == 7 else {})) for k in range(80)],  # rare, and like no other name
        [invoice(k, 總金額=str(k) if k % 4 else k) for k in range(80)],  # both are usual
        [invoice(0, 總金額="x"), *map(invoice, range(20))],  # too few to say
    ],
)
def test_what_is_usual_or_may_be_rare_is_not_odd(objects):
    assert json_schema.odd(objects, 0.02) == {}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("abc"), inside, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(st.lists(values, min_size=1, max_size=30))
def test_every_value_fulfils_the_schema_that_was_taken_from_it(found):
    made = json_schema.infer(found)
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    assert all(validator.is_valid(value) for value in found)


# Sizes.


def test_lengths_of_the_config_follow_the_longest_answer(tmp_path):
    found = propose(tmp_path, rows(lambda k: {"prompt": f"第{k}題？", "response": "很長的回答" * (k + 1)}))
    config = rendering.config_of({}, None, found.type, found.sizes)
    assert found.sizes.answer == 750 and config["generation"]["max_new_tokens"] == 848
    assert config["training"]["max_length"] == 896
    own = rendering.config_of({"generation": {"max_new_tokens": 32}, "method": "orpo"}, None, found.type, found.sizes)
    assert own["generation"]["max_new_tokens"] == 32 and own["training"]["learning_rate"] == 8e-5


def test_rows_that_the_type_cannot_read_are_counted_with_their_faults(tmp_path):
    content = rows(with_spans)
    content[0]["entities"][0]["end"] = 999
    found = propose(tmp_path, content)
    (warning,) = [warning for warning in found.warnings if warning.code == "unreadable_rows"]
    assert warning.message.startswith(f"1 of {N} rows")
    for row in content:
        row["entities"][0]["end"] = 999
    assert [problem.code for problem in propose(tmp_path, content).problems] == ["no_readable_row"]


# Whatever comes.

cells = st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=6) | st.sampled_from(
    ["positive", "negative", '{"a": 1}', "[1]", "<PER>a</PER>", "B-PER"])  # fmt: skip
nested = st.recursive(
    cells,
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(["start", "end", "label", "role", "content", "text", "sentiment"]), inside, max_size=4
        )
    ),
    max_leaves=6,
)
COLUMNS = sorted(
    {role for name in task_types.names() for form in task_types.load(name).FORMS for role in form.required}
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(COLUMNS), nested, max_size=5), max_size=8),
    st.sampled_from([[name] for name in task_types.names()] + [task_types.names()]),
)
def test_no_rows_make_an_exception_and_a_reading_is_of_a_wanted_type(found, wanted):
    reading = recognition.recognise(View(found), wanted)
    assert reading is None or reading.type in wanted


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400) | st.text("甲B-PERIO \t\n$T", max_size=400))
def test_no_text_makes_an_exception(head):
    assert recognition.format_of(head) in (None, "conll", "triplet")


def test_the_yaml_of_a_schema_reads_back_as_it_was(tmp_path):
    found = propose(tmp_path, FORMS["objects"][0])
    text = rendering._yaml({"task": found.task})
    assert parse_yaml(text, "x.yaml").data["task"]["json_schema"] == found.task["json_schema"]


# What a fresh user's files hold.

QUESTION_TEXT, REPLY_TEXT = "第{}件商品怎麼退貨？", "您好，第{}件商品在七天內都可以退，請保留完整包裝並於會員中心申請。"


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("問題", "回覆"),
        ("客服問題", "回覆"),
        ("提問", "答案"),
        ("問題內容", "回覆內容"),
        ("指令", "輸出"),
        ("question", "reply"),
        ("customerQuestion", "agent_answer"),
        ("input", "output"),
        ("留言", "客服回覆"),
        ("問題", "處理說明"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_names_say_which_text_answers_the_other_whatever_their_order_and_lengths(tmp_path, prompt, response, turned):
    def row(k):
        pairs = [(prompt, QUESTION_TEXT.format(k)), (response, REPLY_TEXT.format(k) * 2)]
        return dict(reversed(pairs) if turned else pairs)

    found = propose(tmp_path, table(rows(row)), "a.csv")
    assert found.problems == [] and found.type == "generation"
    assert found.fields == {"prompt": prompt, "response": response}
    (warning,) = [warning for warning in found.warnings if warning.code == "which_answers"]
    assert f"--fields prompt={response},response={prompt}" in warning.hint
    given_fields = {"prompt": response, "response": prompt}
    said = propose(tmp_path, table(rows(row)), "a.csv", fields=given_fields)
    assert said.fields == given_fields and "which_answers" not in {warning.code for warning in said.warnings}


@pytest.mark.parametrize("names", [("新聞標題", "新聞內文"), ("title", "article"), ("摘要", "原文")])
def test_a_text_and_its_summary_are_known_by_the_ends_of_their_names(tmp_path, names):
    short, long = names
    found = propose(tmp_path, table(rows(lambda k: {short: f"第{k}季營收", long: REPLY_TEXT.format(k) * 2})), "a.csv")
    assert found.fields == {"document": long, "summary": short}
    (warning,) = [warning for warning in found.warnings if warning.code == "which_answers"]
    assert f"--fields prompt={short},response={long}" in warning.hint


def test_two_texts_of_which_one_is_short_are_told_how_to_be_a_question_and_its_answer(tmp_path):
    found = propose(tmp_path, table(rows(lambda k: {"甲": f"第{k}件", "乙": REPLY_TEXT.format(k)})), "a.csv")
    assert "--fields prompt=甲,response=乙" in found.problems[0].hint


ASPECTS = ("口味", "服務", "價格")


def aspects(good, bad, empty, n=N):
    """A wide table: each row speaks of two aspects."""

    def row(k):
        likes = [k // (place + 1) % 2 for place in range(len(ASPECTS))]
        cells = {name: (good, bad)[likes[place]] if (k + place) % 3 else empty for place, name in enumerate(ASPECTS)}
        return {"評論內容": f"第{k}次來，餐點好吃但是要等很久。", **cells}

    return [row(k) for k in range(n)]


@pytest.mark.parametrize(
    ("good", "bad", "empty"),
    [("正", "負", ""), ("正", "負", "無"), ("正", "負", "未提及"), ("正面", "負面", ""), ("positive", "negative", ""),
     ("1", "-1", "-2")],
)  # fmt: skip
def test_a_column_for_each_aspect_is_melted_whatever_its_words(tmp_path, good, bad, empty):
    found = propose(tmp_path, table(aspects(good, bad, empty)), "a.csv")
    assert found.problems == [] and found.type == "entity_sentiment"
    assert found.file == {
        "melt": {"columns": [*ASPECTS], "entity": "aspect", "value": "polarity", "drop": [empty]},
    }
    assert {*found.counts} == {good, bad} and sum(found.counts.values()) == 2 * N


def test_a_stray_cell_of_a_wide_table_is_no_sentiment_and_named_with_its_line(tmp_path):
    content = aspects("正", "負", "")
    content[4]["口味"] = "?"
    found = propose(tmp_path, table(content), "a.csv")
    assert found.type == "entity_sentiment" and found.problems == [] and {*found.labels} == {"正", "負"}
    (warning,) = [warning for warning in found.warnings if warning.code == "stray_cells"]
    assert warning.line == 6 and "a.csv:6 '?'" in warning.message


def test_a_wide_table_of_other_words_is_told_of_melt_and_melted_when_the_type_is_given(tmp_path):
    content = table(aspects("O", "X", ""))
    found = propose(tmp_path, content, "a.csv")
    (problem,) = found.problems
    assert problem.code == "ambiguous_column" and "--type entity_sentiment" in problem.hint and "`melt`" in problem.hint
    asked = propose(tmp_path, content, "a.csv", type="entity_sentiment")
    assert asked.problems == [] and asked.file["melt"]["columns"] == [*ASPECTS] and {*asked.counts} == {"O", "X"}
    (problem,) = propose(tmp_path, table(rows(of_two)), "a.csv", type="entity_sentiment").problems
    assert "`melt`" in problem.hint and "melt: {" in problem.hint


def of_two(k):
    return {"標題": f"第{k}季營收公布，市場關注", "類別": ("財經", "政治")[k % 2]}


JOINED = {"text": "標題", "labels": "分類"}


def several(k):
    return {"標題": f"第{k}則新聞的標題寫在這裡", "分類": ("政治、經濟", "經濟", "體育、政治", "體育", "政治")[k % 5]}


@pytest.mark.parametrize("answers", [{}, {"labels": ["政治", "經濟", "體育"]}, {"type": "multi_label_classification"}])
def test_a_cell_with_another_separator_is_named_with_its_line_and_how_to_write_it(tmp_path, answers):
    content = rows(several)
    content[3]["分類"] = "政治,經濟"
    found = propose(tmp_path, table(content), "a.csv", **answers)
    (problem,) = found.problems
    assert problem.code == "mixed_separators" and problem.line == 5 and "a.csv:5 '政治,經濟'" in problem.message
    assert "'、'" in problem.message and "','" in problem.message and "'政治、經濟'" in problem.hint
    assert "--type" not in problem.hint and {*found.counts} == {"政治", "經濟", "體育"}


def test_a_label_with_a_separator_in_it_is_taken_when_it_is_listed(tmp_path):
    content = rows(several)
    content[3]["分類"] = "政治,經濟"
    found = propose(tmp_path, table(content), "a.csv", labels=["政治", "經濟", "體育", "政治,經濟"])
    assert found.problems == [] and found.counts["政治,經濟"] == 1


@pytest.mark.parametrize(
    "labels", [["政治", "經濟", "體育"], {"政治": "politics", "經濟": "economy", "體育": "sports"}]
)
def test_labels_that_are_given_do_not_change_the_type_that_the_cells_show(tmp_path, labels):
    found = propose(tmp_path, table(rows(several)), "a.csv", labels=labels)
    assert found.type == "multi_label_classification" and found.fields == JOINED and found.problems == []
    assert found.options["separator"] == "、"
    one = propose(tmp_path, table(rows(several)), "a.csv", labels=labels, type="classification")
    assert one.type == "classification"


def test_lists_where_objects_are_meant_are_told_how_to_become_objects(tmp_path):
    found = propose(tmp_path, [{**order(k), "output": [order(k)["output"]]} for k in range(N)], type="extraction",
                    fields=same("text", "output"))  # fmt: skip
    (problem,) = found.problems
    assert problem.code == "no_readable_row" and "lists" in problem.message and "array below a key" in problem.hint


# The room for answers.


@pytest.fixture(scope="module")
def n_tokens():
    """Tokens of an answer and of its end, by SmolLM2's tokenizer, which needs more for Chinese than others."""
    from tokenizers import Tokenizer

    from tasklib.model import builtin

    tokenizer = Tokenizer.from_file(str(builtin.folder("builtin:smollm2-135m") / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids) + 1


def room_for(text):
    sizes = fitting.Sizes(0, fitting.estimated_tokens(text))
    return rendering.config_of({}, None, None, sizes)["generation"]["max_new_tokens"]


@pytest.mark.parametrize("name", task_types.names())
def test_every_example_answer_of_a_type_has_room(n_tokens, name):
    module = task_types.load(name)
    for record in module.EXAMPLES:
        answer = module.answer(record, module.EXAMPLE_OPTIONS)
        assert n_tokens(answer) <= room_for(answer), answer


def answers_of_file(path):
    """The answers of an example's rows, as they stand in the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".csv":
        yield from (cell for row in csv.reader(lines) for cell in row)
        return
    for line in lines:
        for value in json.loads(line).values():
            yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


EXAMPLE_FILES = sorted(p for p in (BUNDLE / "templates" / "examples").glob("*/*") if p.suffix in (".csv", ".jsonl"))


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=lambda path: path.parent.name)
def test_every_text_of_the_examples_has_room(n_tokens, path):
    for text in answers_of_file(path):
        assert n_tokens(text) <= room_for(text), text


@pytest.mark.parametrize(
    "text",
    [
        '{"發票號碼":"XY34285249","日期":"2024-12-12","總金額":90598,"賣方":"統一超商","備註":"含稅"}',
        '{"發票號碼":"CD94119933","日期":"2024-08-02","總金額":"NT$90,598","賣方":"中華電信","備註":"含稅"}',
        "2026-07-03 14:05:59 / 0912-345-678 / $1,234,567.89",
        "🚀😀👍🏽👨‍👩‍👧",
        "鬱龜齉龘靐麤籲",
        "Thank you for your order; it ships within two days.",
    ],
)
def test_digits_marks_of_json_emoji_and_rare_characters_have_room(n_tokens, text):
    assert n_tokens(text) <= room_for(text)
    assert n_tokens(text * 4) <= room_for(text * 4)
