"""The words of the annotation guide, of the integration guide and of a request for labels, in the task's language."""

from __future__ import annotations

ANNOTATION = {
    "zh-TW": {
        "title": "標註指南",
        "sample_text": "（一則屬於「{label}」的文字）",
        "intro": "這份文件由 `task_definition.yaml` 與資料產生，請勿手改：標籤的定義寫在 `{definitions}`，"
                 "邊界情況的決定寫在 `data/decisions.csv`，再執行 `uv run python scripts/01_validate_data.py` 更新。",
        "what": "要判斷什麼", "task": "任務：{description}", "no_description": "（尚未說明：請寫在 `description`）",
        "unit": "一列是一則文字，只看這則文字本身判斷，給一個標籤。不要查作者、日期或後來發生的事。",
        "instruction": "模型得到的指示如下。標註時用同一個標準：",
        "labels": "標籤", "label": "標籤（檔案裡寫這個）", "answer": "模型寫出", "definition": "定義",
        "json_schema": "答案的欄位", "json_schema_note": "答案是符合這份 JSON Schema 的物件；欄位的意義寫在它的 "
                                                        "`description`：",
        "undefined": "尚未定義",
        "no_definitions": "**{n} 個標籤還沒有定義。** 沒有定義，兩個人就會標得不一樣。請在 `task_definition.yaml` "
                          "補上，寫清楚什麼樣的文字算、什麼樣的不算：",
        "write_definition": "什麼樣的文字是這個標籤，什麼樣的不是",
        "examples": "資料裡的例子", "example": "文字", "no_examples": "資料裡還沒有例子",
        "examples_note": "以下照資料原樣，過長的截短。例子不一定標對；發現標錯，請改資料。",
        "decisions": "已經決定的邊界情況", "text": "文字", "decided": "標籤", "reason": "理由",
        "no_decisions": "還沒有。",
        "contradictions": "還沒有決定的矛盾", "no_contradictions": "沒有：同樣的文字都有同樣的標籤。",
        "contradictions_note": "同樣的文字有不同的標籤，最多只有一個是對的。執行 "
                               "`uv run python scripts/01_validate_data.py --decide`，在 `data/decisions.csv` 的 "
                               "`label` 填上決定、`reason` 填上理由，並在 `task_definition.yaml` 的 `data:` 之下寫 "
                               "`decisions: data/decisions.csv`。",
        "seen": "標籤（位置）", "more": "其餘 {n} 項未列出。",
        "unsure": "拿不定主意的時候",
        "unsure_steps": [
            "先看標籤的定義，再看上面已經決定的邊界情況。",
            "還是不確定，就讓標籤空著，在備註寫下猶豫的原因。不要猜，也不要丟銅板。",
            "把空著的文字收集起來，大家一起決定，把結果與理由寫進 `data/decisions.csv`。",
            "同一種情況一再出現，表示定義少了一句話：改 `{definitions}`，再回頭檢查標過的列。",
        ],
        "file": "檔案的規則",
        "label_rules": [
            "標籤只能用上表第一欄的字，一字不差：大小寫、全形半形、前後空白都算。",
            "一列一則文字。文字裡有逗號、引號或換行時，整格要用雙引號包住（Excel 會自己處理）。",
            "文字與標籤都不能空白；還不能決定的列先不要放進來。",
        ],
        "open_rules": [
            "一列一筆，欄位齊全；還沒有答案的列先不要放進來。",
            "欄位裡是清單或物件時，用 JSON Lines（.jsonl）：一行一個 JSON 物件。",
        ],
        "file_rules": [
            "編碼用 UTF-8。用 Excel 存檔時選「CSV UTF-8（逗號分隔）」。",
            "不要用顏色、合併儲存格或註解表示標籤：程式讀不到。其他欄位可以保留，不會被讀取。",
            "`data/raw/` 裡的檔案不要修改；修正過的內容存成新檔，再改 `task_definition.yaml` 的 `data.files`。",
        ],
        "columns": "欄位：", "role": "內容", "column": "欄名",
        "roles": {"text": "文字", "label": "標籤", "labels": "標籤（可以有幾個）", "entities": "實體",
                  "tokens": "字或詞", "tags": "每個字或詞的標記", "tagged": "標好實體的文字",
                  "entity": "要判斷的實體", "sentiment": "情感",
                  "pairs": "實體與情感的清單", "target": "對象", "stance": "立場", "prompt": "問題", "response": "回答",
                  "system": "系統提示", "history": "之前的對話", "messages": "整段對話", "conversations": "整段對話",
                  "instruction": "指示", "input": "輸入", "output": "答案", "document": "文章", "summary": "摘要",
                  "context": "文章", "question": "問題", "answers": "答案", "chosen": "較好的回答",
                  "rejected": "較差的回答", "group": "同一組的列留在同一邊", "time": "日期或時間"},
        "file_example": "檔案的樣子：",
        "file_example_open": "檔案的樣子（只是格式示意，內容不是這個任務的）：",
        "file_example_own": "檔案的樣子（資料開頭的列，照原樣）：",
        "offsets": "`start` 是第一個字的位置，從 0 起算；`end` {end}。單位是{unit}（`task.offsets`）。",
        "units": {"code_points": "字元（code point，一個 emoji 算一個）",
                  "utf16": "UTF-16 單位（一個 emoji 通常算兩個）"},
        "ends": {"exclusive": "是最後一個字的下一個位置", "inclusive": "就是最後一個字的位置"},
        "sheet": "還沒有標籤的文字",
        "sheet_intro": "先讓一個語言模型提出建議，再由人逐列檢查：",
        "sheet_rules": [
            "打開 `data/labelling/texts.csv`，先自己判斷，再看 `proposed_label`。先看建議容易被帶著走。",
            "建議錯了：把對的標籤寫在 `corrected_label`。",
            "建議對了：在 `checked` 寫 `x`。沒有寫 `x`、也沒有更正的列不會拿來訓練。",
            "拿不定主意：兩欄都空著，在 `note` 寫原因。",
            "不要改 `id` 與文字。文字前面的一個 `'` 是為了不讓 Excel 把它當成公式或日期，收回時會自動去掉。",
        ],
        "agreement": "兩個人標得一樣嗎",
        "agreement_why": "一個人標的資料看不出標準清不清楚。請兩個人各自標同樣的 {n} 列，隨機抽取，彼此不討論、"
                         "不看對方的答案，再算 Cohen's kappa：兩人的一致率扣掉碰巧一致的部分，1 是完全一致，0 "
                         "是跟亂猜一樣。",
        "agreement_n": "為什麼是 {n} 列：{labels} 個標籤大致平均、kappa 約 0.8 時，95 % 區間是 ±0.1 左右（Cohen 1960 "
                       "的標準誤）；而且每個標籤平均至少 10 列。標籤愈不平均，需要愈多列；資料不夠就全部標兩次。",
        "agreement_read": "習慣的判讀（Landis 與 Koch，1977）：0.8 以上很好，0.6 到 0.8 可用，0.6 以下先不要繼續標："
                          "一起看不一致的列，改定義，換一批列重測。模型的分數不會高過標註者彼此的一致程度太多。",
        "agreement_how": "把下面存成 `agreement.py`，執行 `uv run python agreement.py 甲.csv 乙.csv`：",
        "duplicates": "重複的文字",
        "duplicates_rules": [
            "全形半形、大小寫、空白不計，相同的文字算同一則。",
            "同一則文字出現多次不會被刪掉，但一定留在訓練、驗證、測試的同一邊，否則測試等於洩題。",
            "同一則文字的標籤必須相同；不同就是上面所說的矛盾。",
        ],
        "near_duplicates": "幾乎相同的文字（相似度 {threshold} 以上）也留在同一邊。",
    },
    "en": {
        "sample_text": "(a text that is {label})",
        "title": "Annotation guide",
        "intro": "This page is made from `task_definition.yaml` and the data; do not edit it. Definitions of labels "
                 "belong in `{definitions}`, decided edge cases in `data/decisions.csv`; then run "
                 "`uv run python scripts/01_validate_data.py` to renew it.",
        "what": "What is judged", "task": "Task: {description}",
        "no_description": "(not described yet: write it as `description`)",
        "unit": "One row is one text. Judge it by the text alone and give it one label. Do not look up the author, "
                "the date or what happened later.",
        "instruction": "This is the instruction that the model gets. Label by the same standard:",
        "labels": "Labels", "label": "Label (what the file says)", "answer": "Model writes",
        "definition": "Definition",
        "json_schema": "Fields of the answer",
        "json_schema_note": "The answer is a JSON object by this JSON Schema; what a field means is best said in its "
                            "`description`:",
        "undefined": "not defined yet",
        "no_definitions": "**Labels without a definition: {n}.** Without one, two people will label differently. "
                          "Write them in `task_definition.yaml`, saying which texts count and which do not:",
        "write_definition": "which texts get this label, and which do not",
        "examples": "Examples out of the data", "example": "Text", "no_examples": "no example in the data yet",
        "examples_note": "As they stand in the data, long ones cut. An example may be labelled wrongly; if so, "
                         "correct the data.",
        "decisions": "Edge cases that were decided", "text": "Text", "decided": "Label", "reason": "Reason",
        "no_decisions": "None yet.",
        "contradictions": "Contradictions still open",
        "no_contradictions": "None: equal texts have equal labels.",
        "contradictions_note": "Equal texts with different labels: at most one can be right. Run "
                               "`uv run python scripts/01_validate_data.py --decide`, fill in `label` and `reason` in "
                               "`data/decisions.csv`, and write `decisions: data/decisions.csv` below `data:` in "
                               "`task_definition.yaml`.",
        "seen": "Label (place)", "more": "{n} more not listed.",
        "unsure": "When unsure",
        "unsure_steps": [
            "Read the definitions of the labels first, then the decided edge cases above.",
            "Still unsure: leave the label empty and note why. Do not guess, and do not toss a coin.",
            "Collect such texts, decide on them together, and write result and reason into `data/decisions.csv`.",
            "The same case again and again means that a definition lacks a sentence: change `{definitions}`, "
            "then look again at the rows labelled before.",
        ],
        "file": "Rules of the file",
        "label_rules": [
            "A label is one of the first column above, letter by letter: case, width and outer spaces count.",
            "One row holds one text. A cell with commas, quotes or line breaks stands in double quotes (Excel does so "
            "by itself).",
            "Neither text nor label may be empty; leave out rows that cannot be decided yet.",
        ],
        "open_rules": [
            "One row is one example with all of its columns; leave out rows that have no answer yet.",
            "Where a column holds a list or an object, write JSON lines (.jsonl): one JSON object a line.",
        ],
        "file_rules": [
            "The encoding is UTF-8. In Excel, save as “CSV UTF-8 (comma delimited)”.",
            "Colours, merged cells and comments are no labels: they are not read. Other columns may stay; they are "
            "not read either.",
            "Files in `data/raw/` are never edited; save a corrected copy beside them and change `data.files` in "
            "`task_definition.yaml`.",
        ],
        "columns": "Columns:", "role": "Holds", "column": "Column",
        "roles": {"group": "rows of one group stay on one side", "time": "date or time"},
        "file_example": "What the file looks like:",
        "file_example_open": "What the file looks like (the form alone; the contents are not of this task):",
        "file_example_own": "What the file looks like (rows of its beginning, as they stand):",
        "offsets": "`start` is the place of the first character, counted from 0; `end` is {end}. The unit is {unit} "
                   "(`task.offsets`).",
        "units": {"code_points": "a character (code point; an emoji is one)",
                  "utf16": "a UTF-16 unit (an emoji is two, as a rule)"},
        "ends": {"exclusive": "the place behind the last one", "inclusive": "the place of the last one"},
        "sheet": "Texts without labels",
        "sheet_intro": "Let a language model propose labels, then check every row yourself:",
        "sheet_rules": [
            "Open `data/labelling/texts.csv`. Judge first, then look at `proposed_label`: it is easy to be led.",
            "The proposal is wrong: write the right label into `corrected_label`.",
            "The proposal is right: write `x` into `checked`. Rows without `x` and without a correction are not "
            "trained on.",
            "Unsure: leave both empty and write why into `note`.",
            "Leave `id` and the text as they are. One `'` before a text keeps Excel from reading a formula or a date; "
            "it is taken away again when the sheet comes back.",
        ],
        "agreement": "Do two people label alike?",
        "agreement_why": "Data that one person labelled do not show whether the standard is clear. Let two people "
                         "label the same {n} rows, drawn at random, without talking and without seeing the other's "
                         "answers. Then compute Cohen's kappa: their agreement without the part that is chance; 1 is "
                         "full agreement, 0 is what guessing gives.",
        "agreement_n": "Why {n} rows: with {labels} labels of about equal size and a kappa near 0.8, the 95 % "
                       "interval is about ±0.1 (standard error of Cohen 1960); and each label has at least 10 rows on "
                       "average. Less balanced labels need more rows; with fewer rows than that, label all of them "
                       "twice.",
        "agreement_read": "The usual reading (Landis and Koch 1977): above 0.8 very good, 0.6 to 0.8 usable. Below "
                          "0.6 do not go on: look at the rows that differ together, change the definitions, and "
                          "measure again on other rows. A model will hardly score higher than the labellers agree "
                          "with each other.",
        "agreement_how": "Save this as `agreement.py` and run `uv run python agreement.py first.csv second.csv`:",
        "duplicates": "Equal texts",
        "duplicates_rules": [
            "Texts that differ only in width, case or white space count as the same text.",
            "Equal texts are not removed, but all of them stay on one side of train, validation and test; else the "
            "test would give its answers away.",
            "Equal texts must have equal labels; otherwise they are a contradiction as above.",
        ],
        "near_duplicates": "Texts that are nearly equal (similarity {threshold} or more) stay on one side too.",
    },
}  # fmt: skip

INTEGRATION = {
    "zh-TW": {
        "title": "整合指南",
        "intro": "給要呼叫這個模型的工程師。由 `task_definition.yaml` 與 `configs/` 產生，請勿手改。"
                 "指令都在任務資料夾裡執行，需要先訓練完成（`bash scripts/run_pipeline.sh`）。",
        "call": "呼叫 predict.py",
        "call_json": "這個任務的一筆輸入不只一段文字，所以每個參數是一個 JSON 物件，鍵是資料的欄名：",
        "call_note": "輸出永遠是一個 JSON 物件（stdout），進度與警告在 stderr。每次呼叫都要載入模型，所以一次給多筆。",
        "exit_codes": "結束碼：0 成功，1 程式錯誤，2 用法或設定錯誤，3 輸入有錯（`errors` 列出每一列），4 "
                      "還沒訓練或缺套件，130 被中斷。不是 0 時 `outputs` 沒有預測。",
        "output": "輸出的樣子（數值是示意）：",
        "fields": "`outputs.predictions` 依輸入的順序，每筆一個：",
        "key": "欄位", "meaning": "意義",
        "text_key": "輸入的文字（正規化之後）",
        "prediction_key": "標籤；無法解析時是 null",
        "probabilities_key": {"score": "每個標籤的機率，總和是 1（在合法答案之間正規化）",
                              "generate": "null：這個任務用生成解碼", "compare": "null"},
        "raw_output_key": {"score": "null：這個任務不生成文字，只比較合法答案", "generate": "模型寫出的原文",
                           "compare": "模型寫出的原文"},
        "parsed_key": {"score": "一定是 true", "generate": "答案能不能解析", "compare": "模型有沒有寫出東西"},
        "python": "從 Python 呼叫",
        "python_note": "把 `TASK` 換成任務資料夾的路徑。一筆輸入是一個物件，鍵是資料的欄名：",
        "inputs": "其他輸入形式",
        "input": "形式", "command": "指令",
        "forms": {"argument": "直接寫在指令上", "text_file": ".txt：一行一則，空行略過",
                  "table": ".csv、.tsv、.jsonl、.json：要有欄位 {columns}", "stdin": "標準輸入：一行一則",
                  "argument_json": "每個參數一個 JSON 物件", "text_file_json": ".txt：一行一個 JSON 物件",
                  "stdin_json": "標準輸入：一行一個 JSON 物件",
                  "output": "結果寫成 JSON Lines，不放進摘要", "config": "用另一個訓練過的設定"},
        "request": "模型收到的請求",
        "request_note": "自己呼叫模型（不經過 `predict.py`）時，訊息必須與訓練時一字不差。以一個例子的文字為例：",
        "template": "再用這個模型 tokenizer 的 chat template 排版："
                    "`apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)`。`predict.py` "
                    "會核對排版後的雜湊（`run.json` 的 `prompt_sha256`），不同就拒絕。",
        "few_shot": "`n_few_shot` 是 {n}：問題之前有 {n} 組取自訓練資料的問答（上面以第一組的位置示意）。真正的內容在 "
                    "`data/processed/validation.jsonl` 每一列的 `prompt`。",
        "normalize": "文字進入提示之前的處理",
        "no_normalize": "沒有：文字原樣放進提示，前後的空白也不去掉。",
        "nfkc": "先做 Unicode NFKC 正規化（`data.normalize: [nfkc]`），全形英數會變半形。例如 `{before}` 變成 "
                "`{after}`：`predict.py` 會自己做，自己組請求時要先做。",
        "answers": "合法的答案",
        "answers_note": "模型只會被要求寫出下面其中一個；`predict.py` 回傳的是標籤。",
        "answer": "模型寫出", "label": "標籤",
        "parsing": "如何解析",
        "parsing_score": "這個任務用 `evaluation.decoding: score`：不解析文字，直接比較每個合法答案的可能性，"
                         "取最高者，所以一定有答案。自己生成文字時才需要下面的規則。",
        "parsing_generate": "這個任務用 `evaluation.decoding: generate`：模型寫文字，再照下面的規則解析。",
        "parsing_compare": "評估用 `evaluation.decoding: compare`：比較每一列自己的兩個答案的可能性，不看模型寫出什麼。"
                           "`predict.py` 與服務出來的模型則是直接寫出答案：",
        "parsing_failed": "無法解析時 `prediction` 是 null、`parsed` 是 false，評估時算答錯。上線時請當成「沒有答案」"
                          "交給人處理。",
        "parsing_examples_open": "這一類任務的解析器實際跑出來的例子（用示意的設定）：",
        "open_answers": "答案的樣子",
        "parsing_rules": [
            "全形半形、大小寫、前後的空白與標點不計；剩下的正好是一個答案，就是它。",
            "否則，文字裡正好出現一個答案時取它（較長的答案優先；英文單字裡的片段不算）。",
            "出現兩個以上、或一個都沒有，就是無法解析：`prediction` 是 null，`parsed` 是 false。",
            "無法解析在評估時算答錯。上線時請當成「沒有答案」交給人處理，不要當成任何一個標籤。",
        ],
        "parsing_examples": "用這個任務的解析器實際跑出來的例子：",
        "written": "模型寫出", "parsed_as": "解析成", "unparsable": "（無法解析）",
        "settings": "模型與生成的設定", "setting": "設定", "value": "值",
        "settings_note": {"score": "`score` 不生成文字，`max_new_tokens` 用不到；結果不含亂數。",
                          "generate": "生成用 greedy 解碼，結果不含亂數；寫到 `max_new_tokens` 還沒停就截斷。",
                          "compare": "評估不生成文字；`predict.py` 用 greedy 解碼，結果不含亂數，寫到 "
                                     "`max_new_tokens` 還沒停就截斷。"},
        "serving": "換到別處服務",
        "serving_note": "每個匯出的資料夾都有 `inference.json`：提示的雜湊、system、停止字串、解碼方式、"
                        "標籤（答案不是標籤時是整個 `task` 設定）、"
                        "每個檔案的 sha256。匯出的 chat template 不需要其他參數就能排出訓練時的提示。"
                        "服務出來的模型寫的是文字：照上面「如何解析」的規則讀；它沒有機率。",
        "serving_few_shot": "訊息裡還少了 `n_few_shot` 組問答：放在問題之前，與上面的請求相同。",
        "llama": "llama.cpp server",
        "llama_note": "GGUF 需要 llama.cpp 的轉換程式；缺少時錯誤訊息會寫出安裝指令。伺服器用 PyPI 的 xllamacpp：",
        "llama_binary": "有 llama.cpp 本身的 `llama-server` 時（這一行沒有在這個專案的測試裡執行）：",
        "openai": "OpenAI client",
        "openai_note": "對任何 OpenAI 相容的伺服器都一樣（`uv pip install openai`）：",
        "openai_errors": [
            "`finish_reason` 是 `length`：答案寫到 `max_tokens` 還沒停，通常是停止字串不見了。先跑 "
            "`export_model.py --verify`。",
            "HTTP 400：提示超過伺服器的 context。HTTP 503：模型還在載入，稍後再試。連線被拒：伺服器沒有啟動。",
            "文字無法解析：當成「沒有答案」，不要當成任何一個標籤。",
        ],
        "vllm": "vLLM（沒有在這個專案的測試裡執行）",
        "ollama": "Ollama（沒有在這個專案的測試裡執行；Modelfile 的模板用 Go 的 text/template 核對過）",
        "ollama_note": "第一個指令寫出 `Modelfile`，交給 Ollama，並把它的回答與訓練好的模型逐列比較：",
        "same": "確認它和訓練時一樣",
        "same_note": "依序是：用訓練時的訊息問一句；用同樣的列評分；逐列比較提示的 token、文字與分數。",
        "measured": "在這裡量到的",
        "not_measured": "還沒有。`uv run python scripts/export_model.py --verify` 會比較所有的匯出，並把結果寫在這裡。",
        "measured_note": "驗證集 {n} 列，一次一列，greedy；{date}，{machine}。`run` 是訓練好的模型本身。",
        "system": "系統", "reference": "基準", "unknown": "不明",
        "verdicts": {"better": "較好", "not_distinguishable": "分不出差別", "worse": "較差",
                     "no_score": "沒有分數，只比對文字"},
        "measured_columns": ["和 run 比", "提示相同的列", "文字相同的列", "延遲中位數（秒）", "列／秒"],
    },
    "en": {
        "title": "Integration guide",
        "intro": "For the engineer who calls this model. Made from `task_definition.yaml` and `configs/`; do not edit "
                 "it. Commands run in the task folder, after training (`bash scripts/run_pipeline.sh`).",
        "call": "Calling predict.py",
        "call_json": "An input of this task is more than one text, so each argument is a JSON object whose keys are "
                     "the data's columns:",
        "call_note": "stdout is always one JSON object; progress and warnings go to stderr. Every call loads the "
                     "model, so give many texts at once.",
        "exit_codes": "Exit codes: 0 ok, 1 a bug, 2 usage or configuration, 3 the input has faults (`errors` lists "
                      "every row), 4 not trained yet or a package is missing, 130 interrupted. `outputs` holds "
                      "predictions only with 0.",
        "output": "What comes out (the numbers are only an illustration):",
        "fields": "`outputs.predictions` holds one entry for each input, in the same order:",
        "key": "Key", "meaning": "Meaning",
        "text_key": "the text that was given, after normalization",
        "prediction_key": "the label; null where the answer could not be parsed",
        "probabilities_key": {"score": "probability of each label; they sum to 1 over the legal answers",
                              "generate": "null: this task decodes by generation", "compare": "null"},
        "raw_output_key": {"score": "null: this task writes no text, it compares the legal answers",
                           "generate": "what the model wrote", "compare": "what the model wrote"},
        "parsed_key": {"score": "always true", "generate": "whether the answer could be parsed",
                       "compare": "whether the model wrote anything"},
        "python": "Calling it from Python",
        "python_note": "Put the path of the task folder in place of `TASK`. One input is one object whose keys are "
                       "the data's columns:",
        "inputs": "Other forms of input",
        "input": "Form", "command": "Command",
        "forms": {"argument": "on the command line", "text_file": ".txt: one text a line, blank lines skipped",
                  "table": ".csv, .tsv, .jsonl, .json with the columns {columns}",
                  "stdin": "standard input: one text a line",
                  "argument_json": "one JSON object for each argument",
                  "text_file_json": ".txt: one JSON object a line",
                  "stdin_json": "standard input: one JSON object a line",
                  "output": "results as JSON lines instead of in the summary", "config": "another config that was "
                                                                                         "trained"},
        "request": "The request that the model gets",
        "request_note": "Whoever calls the model without `predict.py` must send exactly the messages of training. "
                        "With the text of one example:",
        "template": "They are then rendered by the chat template of the model's own tokenizer: "
                    "`apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)`. `predict.py` "
                    "compares the hash of the rendering (`prompt_sha256` in `run.json`) and refuses another one.",
        "few_shot": "`n_few_shot` is {n}: {n} questions and answers out of the training data stand before the "
                    "question (the place of the first is shown). Their real content stands in `prompt` of each row of "
                    "`data/processed/validation.jsonl`.",
        "normalize": "What happens to the text first",
        "no_normalize": "Nothing: the text goes into the prompt as it stands, outer white space included.",
        "nfkc": "Unicode NFKC normalization (`data.normalize: [nfkc]`): full-width letters and digits become "
                "half-width. `{before}` becomes `{after}`, for example. `predict.py` does it; do it yourself in a "
                "request of your own.",
        "answers": "Legal answers",
        "answers_note": "The model is asked to write exactly one of these; `predict.py` returns the label.",
        "answer": "Model writes", "label": "Label",
        "parsing": "How an answer is parsed",
        "parsing_score": "This task uses `evaluation.decoding: score`: no text is parsed; the likelihoods of the "
                         "legal answers are compared and the highest wins, so there is always an answer. The rules "
                         "below matter only where you generate text yourself.",
        "parsing_generate": "This task uses `evaluation.decoding: generate`: the model writes text, and these rules "
                            "read it.",
        "parsing_compare": "Evaluation uses `evaluation.decoding: compare`: the likelihoods of the two answers that "
                           "each row has are compared, and nothing is written. `predict.py` and a served model write "
                           "an answer:",
        "parsing_failed": "Where it cannot be parsed, `prediction` is null and `parsed` is false; evaluation counts "
                          "that as wrong. In production treat it as “no answer” and let a person look.",
        "parsing_examples_open": "What the parser of this kind of task makes of some answers (with options of an "
                                 "example):",
        "open_answers": "What an answer looks like",
        "parsing_rules": [
            "Width, case and outer white space or punctuation do not count; if the rest is exactly one answer, it is "
            "that one.",
            "Otherwise the text must contain exactly one of the answers (longer ones first; parts of an English word "
            "do not count).",
            "Two or more, or none: it cannot be parsed. `prediction` is null and `parsed` is false.",
            "Evaluation counts that as wrong. In production treat it as “no answer” and let a person look; never take "
            "it for one of the labels.",
        ],
        "parsing_examples": "What this task's own parser makes of some answers:",
        "written": "Model writes", "parsed_as": "Parsed as", "unparsable": "(not parsable)",
        "settings": "Model and generation settings", "setting": "Setting", "value": "Value",
        "settings_note": {"score": "`score` writes no text, so `max_new_tokens` is not used; nothing is drawn at "
                                   "random.",
                          "generate": "Decoding is greedy, nothing is drawn at random; an answer longer than "
                                      "`max_new_tokens` is cut.",
                          "compare": "Evaluation writes no text. `predict.py` decodes greedily, nothing is drawn at "
                                     "random; an answer longer than `max_new_tokens` is cut."},
        "serving": "Serving it elsewhere",
        "serving_note": "Beside every export lies `inference.json`: hash of the prompt, system message, stop texts, "
                        "decoding, labels (the whole `task` section where answers are no labels), and the sha256 of "
                        "every file. The exported chat template renders the prompt "
                        "of training without further arguments. A served model writes text: read it by the rules of "
                        "“How an answer is parsed” above; it has no probabilities.",
        "serving_few_shot": "The messages below lack the `n_few_shot` worked examples: they stand before the question, "
                            "as in the request above.",
        "llama": "llama.cpp server",
        "llama_note": "A GGUF file needs llama.cpp's converter; where it is missing, the error gives the command that "
                      "installs it. The server is that of xllamacpp from PyPI:",
        "llama_binary": "With llama.cpp's own `llama-server` (this line is not run by this project's tests):",
        "openai": "OpenAI client",
        "openai_note": "The same for every OpenAI-compatible server (`uv pip install openai`):",
        "openai_errors": [
            "`finish_reason` is `length`: the answer did not stop before `max_tokens`, mostly because a stop text got "
            "lost. Run `export_model.py --verify` first.",
            "HTTP 400: the prompt is longer than the server's context. HTTP 503: the model is still loading, try again "
            "later. Connection refused: no server is running.",
            "A text that cannot be parsed is “no answer”; never take it for one of the labels.",
        ],
        "vllm": "vLLM (not run by this project's tests)",
        "ollama": "Ollama (not run by this project's tests; the Modelfile's template is checked with Go's "
                  "text/template)",
        "ollama_note": "The first command writes the `Modelfile`, gives it to Ollama, and compares its answers with "
                       "the trained model's, row by row:",
        "same": "Making sure that it is the same model",
        "same_note": "In this order: ask one text in the words of training; score the same rows; compare prompt "
                     "tokens, text and score row by row.",
        "measured": "Measured here",
        "not_measured": "Nothing yet. `uv run python scripts/export_model.py --verify` compares every export and "
                        "writes the result here.",
        "measured_note": "{n} validation rows, one at a time, greedy; {date}, {machine}. `run` is the trained model "
                         "itself.",
        "system": "System", "reference": "reference", "unknown": "unknown",
        "verdicts": {"better": "better", "not_distinguishable": "not distinguishable", "worse": "worse",
                     "no_score": "no score, texts alone"},
        "measured_columns": ["Beside run", "Rows with the same prompt", "Rows with the same text",
                             "Median latency (s)", "Rows/s"],
    },
}  # fmt: skip

# What is said otherwise of a task type, by its name; `open`: of all whose answers are no labels.
OF_TYPE = {
    "zh-TW": {
        "undecided": {  # a decision is one label of one text: other answers are corrected in the data
            "intro": "這份文件由 `task_definition.yaml` 與資料產生，請勿手改：標準寫在 `{definitions}`，"
                     "再執行 `uv run python scripts/01_validate_data.py` 更新。",
            "unsure_steps": [
                "先看上面的指示與定義。",
                "還是不確定，就先不要放這一列，記下猶豫的原因。不要猜，也不要丟銅板。",
                "把這些列收集起來，大家一起決定。",
                "同一種情況一再出現，表示標準少了一句話：改 `{definitions}`，再回頭檢查做過的列。",
            ],
            "file_rules": [
                "編碼用 UTF-8。用 Excel 存檔時選「CSV UTF-8（逗號分隔）」。",
                "不要用顏色、合併儲存格或註解表示答案：程式讀不到。其他欄位可以保留，不會被讀取。",
                "`data/raw/` 裡的檔案不要修改；修正過的內容存成新檔，再改 `task_definition.yaml` 的 `data.files`。",
            ],
        },
        "open": {
            "unit": "一列是一筆輸入與它的答案。只看這一列的內容作答，不要查其他資料。",
            "no_contradictions": "沒有：同樣的輸入都有同樣的答案。",
            "contradictions_note": "同樣的輸入有不同的答案。若只有一個是對的，在修正過的副本裡改掉另一列。",
            "seen": "答案（位置）",
            "duplicates_rules": [
                "全形半形、大小寫、空白不計，相同的輸入算同一則。",
                "同一則輸入出現多次不會被刪掉，但一定留在訓練、驗證、測試的同一邊，否則測試等於洩題。",
            ],
            "prediction_key": "解析後的答案；無法解析時是 null",
            "answer_form": "模型寫出的答案像這樣：",
            "parsing_open": ["照這一類任務的格式解析；前後的空白不計。"],
        },
        "multi_label_classification": {
            "unit": "一列是一則文字，只看這則文字本身判斷，給它所有適用的標籤，可以不只一個。",
            "prediction_key": "標籤的清單；無法解析時是 null",
            "parsing_open": ["答案之間用頓號、逗號、分號或換行隔開；順序、重複、全形半形與大小寫不計。",
                             "有任何一段不是合法的答案，就整個無法解析。沒有標籤時，模型寫的是 `task.none_answer`。"],
        },
        "ner": {
            "unit": "一列是一則文字與其中所有的實體：每個實體是文字裡連續的一段與它的類型。同一個名稱出現幾次就標幾次；"
                    "沒有實體的文字也要留著，答案是空的清單。",
            "prediction_key": "實體的清單：`start` 是第一個字元的位置（從 0 起算），`end` 是最後一個字元的下一個位置，"
                              "單位是 Unicode 字元（code point）；無法解析時是 null",
            "answer_form": "模型依出現的順序寫出實體與類型的 JSON 清單，位置由 `predict.py` 在原文裡找回來：",
            "parsing_open": ["必須正好有一個 JSON 清單，每一項有 `text` 與 `type`。",
                             "有任何一項缺了它們、或類型不是合法的答案，就整個無法解析。",
                             "自己呼叫模型時，位置要自己從原文裡找：有 `nth` 時是這幾個字在全文第幾次出現（從 1 起），"
                             "沒有時是前一個同樣的字之後的下一次。"],
        },
        "entity_sentiment": {
            "unit": "一列是一則文字與其中一個實體，判斷文字對「這個實體」的情感，不是整則文字的情感。",
        },
        "entity_sentiment_pairs": {
            "unit": "一列是一則文字與其中所有被評價的實體，每個實體一個情感。沒有被評價的實體時，答案是空的清單。",
            "prediction_key": "實體與情感的清單；無法解析時是 null",
            "parsing_open": ["必須正好有一個 JSON 清單，每一項有 `entity` 與 `sentiment`；重複的只算一次。",
                             "有任何一項缺了實體、或情感不是合法的答案，就整個無法解析。"],
        },
        "stance": {
            "unit": "一列是一則文字與一個對象，判斷作者對「這個對象」的立場，不是文字的語氣好壞。",
        },
        "generation": {
            "unit": "一列是一個問題（或一段對話、一篇文章）與一個好的回答。"
                    "回答就是希望模型寫出的樣子：語氣、長度、格式都算。",
            "prediction_key": "模型的回答；什麼都沒寫時是 null",
            "answer_form": "答案是自由的文字：",
            "parsing_open": ["前後的空白去掉；思考過程（`<think>`）去掉；其餘原樣保留。"],
        },
        "extraction": {
            "unit": "一列是一則文字與從中抽取出來的 JSON 物件，欄位照 `task` 的 schema。文字裡沒有的，不要憑常識補上。",
            "prediction_key": "JSON 物件；無法解析時是 null",
            "answer_form": "答案是一個 JSON 物件：",
            "parsing_open": ["必須正好有一個 JSON 物件；前後的其他文字不計。",
                             "不符合 schema 的物件照樣回傳：要不要收下，請用 schema 自己驗證。"],
        },
        "preference": {
            "unit": "一列是一個問題與兩個回答：`chosen` 較好，`rejected` 較差。兩個一樣好，就不要放這一列。",
            "prediction_key": "模型的回答；什麼都沒寫時是 null",
            "answer_form": "答案是自由的文字：",
            "parsing_open": ["前後的空白去掉，其餘原樣保留。"],
        },
    },
    "en": {
        "undecided": {
            "intro": "This page is made from `task_definition.yaml` and the data; do not edit it. The standard "
                     "belongs in `{definitions}`; then run `uv run python scripts/01_validate_data.py` to renew it.",
            "unsure_steps": [
                "Read the instruction and the definitions above first.",
                "Still unsure: leave the row out for now and note why. Do not guess, and do not toss a coin.",
                "Collect such rows and decide on them together.",
                "The same case again and again means that the standard lacks a sentence: change `{definitions}`, then "
                "look again at the rows done before.",
            ],
            "file_rules": [
                "The encoding is UTF-8. In Excel, save as “CSV UTF-8 (comma delimited)”.",
                "Colours, merged cells and comments are no answers: they are not read. Other columns may stay; they "
                "are not read either.",
                "Files in `data/raw/` are never edited; save a corrected copy beside them and change `data.files` in "
                "`task_definition.yaml`.",
            ],
        },
        "open": {
            "unit": "One row is one input with its answer. Answer by what the row says alone; do not look anything up.",
            "no_contradictions": "None: equal inputs have equal answers.",
            "contradictions_note": "Equal inputs with different answers. Where only one is right, correct the other "
                                   "row in a corrected copy.",
            "seen": "Answer (place)",
            "duplicates_rules": [
                "Inputs that differ only in width, case or white space count as the same one.",
                "Equal inputs are not removed, but all of them stay on one side of train, validation and test; else "
                "the test would give its answers away.",
            ],
            "prediction_key": "the parsed answer; null where it could not be parsed",
            "answer_form": "An answer of the model looks like this:",
            "parsing_open": ["It is read in the form of this kind of task; outer white space does not count."],
        },
        "multi_label_classification": {
            "unit": "One row is one text. Judge it by the text alone and give it every label that applies; there may "
                    "be several.",
            "prediction_key": "a list of labels; null where the answer could not be parsed",
            "parsing_open": ["Answers stand apart by commas, semicolons or line breaks; order, repetition, width and "
                             "case do not count.",
                             "Where any part is no legal answer, nothing is parsed. For a text without a label the "
                             "model writes `task.none_answer`."],
        },
        "ner": {
            "unit": "One row is one text with all of its entities: each is a stretch of the text and a type. A name "
                    "that occurs twice is marked twice; a text without entities stays, with an empty list.",
            "prediction_key": "a list of entities: `start` is the place of the first character, counted from 0, `end` "
                              "the place behind the last, in Unicode code points; null where the answer could not be "
                              "parsed",
            "answer_form": "The model writes a JSON list of entities and types in the order of the text; `predict.py` "
                           "finds their places in it:",
            "parsing_open": ["There must be exactly one JSON list, whose items have `text` and `type`.",
                             "Where any item lacks one of them, or has a type that is no legal answer, nothing is "
                             "parsed.",
                             "Who calls the model without `predict.py` has to find the places: with `nth` it is that "
                             "occurrence of the words in the text, counted from 1; without, the next one behind the "
                             "item before with the same words."],
        },
        "entity_sentiment": {
            "unit": "One row is one text and one entity in it. Judge the sentiment towards this entity, not that of "
                    "the whole text.",
        },
        "entity_sentiment_pairs": {
            "unit": "One row is one text with every entity that it judges, and a sentiment for each. Where none is "
                    "judged, the answer is an empty list.",
            "prediction_key": "a list of entities with their sentiment; null where the answer could not be parsed",
            "parsing_open": ["There must be exactly one JSON list, whose items have `entity` and `sentiment`; a "
                             "repeated pair counts once.",
                             "Where any item lacks its entity, or has a sentiment that is no legal answer, nothing is "
                             "parsed."],
        },
        "stance": {
            "unit": "One row is one text and one target. Judge the author's stance towards this target, not the tone "
                    "of the text.",
        },
        "generation": {
            "unit": "One row is a question (or a conversation, or a document) and a good answer. The answer is what "
                    "the model should write: its tone, length and form count.",
            "prediction_key": "what the model answers; null where it wrote nothing",
            "answer_form": "An answer is free text:",
            "parsing_open": ["Outer white space and thoughts (`<think>`) are removed; the rest stays as it is."],
        },
        "extraction": {
            "unit": "One row is one text and the JSON object taken from it, with the fields of the schema in `task`. "
                    "What the text does not say is not filled in.",
            "prediction_key": "a JSON object; null where the answer could not be parsed",
            "answer_form": "An answer is one JSON object:",
            "parsing_open": ["There must be exactly one JSON object; other text around it does not count.",
                             "An object that does not follow the schema is returned as it is: validate it yourself."],
        },
        "preference": {
            "unit": "One row is one question and two answers: `chosen` is the better one, `rejected` the worse. Where "
                    "both are as good, leave the row out.",
            "prediction_key": "what the model answers; null where it wrote nothing",
            "answer_form": "An answer is free text:",
            "parsing_open": ["Outer white space is removed; the rest stays as it is."],
        },
    },
}  # fmt: skip

LABELLING = {
    "zh-TW": {"definitions": "各個答案的意思：", "line": "- {answer}：{definition}"},
    "en": {"definitions": "What each answer means:", "line": "- {answer}: {definition}"},
}
