"""The words of the model card and of the dataset card, in the task's language."""

from __future__ import annotations

MODEL_CARD = {
    "zh-TW": {
        "generated": "這份說明由 `scripts/05_upload_hf.py` 依執行紀錄產生；數字都來自 `run.json` 與 `metrics.json`。",
        "what": "這個模型做什麼",
        "what_adapter": "這是 {base} 的 {adapter} 轉接器（adapter），以 {method} 微調，任務類型是 `{task_type}`。"
                        "它是生成式語言模型：答案由模型以文字寫出，沒有分類頭。",
        "what_full": "這是由 {base} 完整微調（{method}）而成的模型，任務類型是 `{task_type}`。"
                     "它是生成式語言模型：答案由模型以文字寫出，沒有分類頭。",
        "formats": {"adapter": "本儲存庫是轉接器本身。",
                    "merged": "本儲存庫是完整的模型：轉接器已合併進基底模型（safetensors）。",
                    "gguf": "本儲存庫是合併後轉成的 GGUF 檔（{quantization}），給 llama.cpp 使用。",
                    "ollama": "本儲存庫是合併後轉成的 GGUF 檔（{quantization}）與 Ollama 的 Modelfile。"},
        "compared_texts": "與訓練好的模型在驗證集 {n} 列上逐列比較生成的文字（greedy）：提示相同 {same_prompt} 列，"
                          "文字相同 {same_text} 列。這個任務不對生成的文字評分；下面「評估結果」是訓練好的模型的成績。",
        "turns": "一列若有更早的對話，依原樣放在這則訊息之前；對話自己的系統訊息取代任務的系統訊息。",
        "start_from": "接續自",
        "limit_compare": "上面的成績由比較每一列兩個答案的可能性得出，沒有評過模型自己寫出的文字。",
        "contract": "`inference.json` 記著提示、停止字串、解碼方式、標籤與每個檔案的 sha256。",
        "not_compared": "**這個匯出沒有與訓練好的模型比較過。**",
        "compared": "與訓練好的模型在驗證集 {n} 列上逐列比較（greedy）：{metric} {value}，{verdict}；"
                    "提示相同 {same_prompt} 列，文字相同 {same_text} 列。下面「評估結果」是訓練好的模型的成績。",
        "export_verdict": {"better": "較好", "not_distinguishable": "分不出差別", "worse": "較差"},
        "loses": "這個數字格式讓成績顯著變差。",
        "ask_served": "再用任何 OpenAI 相容的 client 問：訊息如上面「必須使用的提示」，"
                      "`temperature` 0，`max_tokens` {n}。",
        "answers": "標籤，以及模型寫出的文字：", "label": "標籤", "answer": "模型輸出",
        "prompt": "必須使用的提示",
        "prompt_note": "訓練時每一列都是下面的樣子；改動任何一個字，下面的成績就不再成立。"
                       "請用本儲存庫 tokenizer 的 chat template 排版，大括號內換成要判斷的內容。",
        "system": "系統訊息：", "no_system": "沒有系統訊息。", "user": "使用者訊息：",
        "nfkc": "送進提示之前，文字先做 Unicode NFKC 正規化（全形英數轉半形等）。",
        "few_shot": "每個問題之前放了 {n} 則訓練資料中的示範問答。示範屬於訓練資料，沒有公開；"
                    "少了它們，成績不保證相同。",
        "results": "評估結果", "split": {"validation": "驗證集", "test": "測試集", "train": "訓練集"},
        "results_on": "以下是在{split} {n} 列上的結果，各系統使用完全相同的列。",
        "validation_only": "**沒有測試集的結果。** 以下是驗證集的數字；驗證集可能參與過模型的選擇，數字可能偏樂觀。",
        "decoding": {"score": "解碼方式：比較每個標籤答案的可能性（likelihood），取最高者。",
                     "generate": "解碼方式：模型自由生成，再解析文字。",
                     "compare": "解碼方式：比較每一列兩個答案的每 token 平均對數機率，看較好的那個是否較高。",
                     "none": ""},
        "system_name": "系統", "interval": "{metric}（95 % 區間）", "difference": "微調模型減去它（95 % 區間）",
        "verdict": "判定", "finetuned": "微調模型", "better": "微調較好", "worse": "微調較差",
        "not_distinguishable": "無法區分", "undefined": "無定義",
        "interval_note": "區間由列的 bootstrap 求得；判定來自主要指標的配對 bootstrap。",
        "no_baselines": "同樣的列上沒有基準可以比較。",
        "gate_passed": "品質門檻：通過{target}。", "gate_failed": "品質門檻：**未通過**{target}。",
        "target": "（主要指標的目標：{target}）",
        "per_class": "各類別", "precision": "精確率", "recall": "召回率", "f1": "F1", "support": "列數",
        "data": "訓練資料", "item": "項目", "value": "值",
        "data_note": "資料由任務擁有者提供，不隨模型公開。",
        "counts": {"rows": "訓練列數", "tokens": "訓練列的 token 數", "trained_tokens": "計入損失的 token 數",
                   "steps": "最佳化步數", "trainable_parameters": "可訓練參數"},
        "rows_of": "{split}列數",
        "training": "訓練設定",
        "final": {"train_loss": "訓練損失（平均）", "eval_loss": "驗證損失（最後一次）"},
        "versions": "版本",
        "use": "使用方式", "login": "儲存庫若為私有，先執行 `hf auth login`。",
        "code_text": "要判斷的文字", "code_few_shot": "訓練資料中的 {n} 則示範問答，未公開",
        "code_local": "訓練時是本機資料夾，未公開",
        "limits": "限制",
        "limit_builtin": "訓練與評估所用的基礎模型是 `{base}` 的一份副本，其權重為 *{note}*；"
                         "載入原始權重時，輸出可能與上面的成績略有出入。",
        "limit_local": "基礎模型在訓練時是本機資料夾 `{base}`，沒有公開。",
        "limit_local_adapter": "沒有那個基礎模型，這個轉接器無法使用。",
        "limit_interval": "成績只來自{split}的 {n} 列：{metric} 的 95 % 區間寬 {width}（{low} 到 {high}），"
                          "差距小於此的模型無法靠這些列分出高下。",
        "limit_undefined": "{metric} 在這些列上無定義。",
        "limit_score": "上面的成績由比較標籤答案的可能性得出；上面的程式則讓模型自由生成，可能寫出標籤以外的文字。",
        "limit_domain": "只在這個任務自己的資料上評估過；其他領域、語言或格式的表現未知。",
        "limit_bias": "訓練資料中的標註錯誤與偏差，模型會一併學到。",
        "license": "授權", "license_own": "本模型：`{license}`。",
        "license_none": "擁有者尚未指定本模型的授權；在指定之前，請勿假設任何使用權。",
        "license_base": "基礎模型：`{license}`。", "license_base_unknown": "基礎模型：依 {base} 的授權條款。",
    },
    "en": {
        "generated": "Written by `scripts/05_upload_hf.py` from the records of the run; every number comes from "
                     "`run.json` and `metrics.json`.",
        "what": "What this model does",
        "what_adapter": "A {adapter} adapter for {base}, fine-tuned with {method} for a task of type `{task_type}`. "
                        "It is a generative language model: the model writes its answer as text; there is no "
                        "classification head.",
        "what_full": "{base}, fully fine-tuned ({method}) for a task of type `{task_type}`. It is a generative "
                     "language model: the model writes its answer as text; there is no classification head.",
        "formats": {"adapter": "This repository holds the adapter itself.",
                    "merged": "This repository holds the whole model: the adapter merged into its base (safetensors).",
                    "gguf": "This repository holds the merged model as a GGUF file ({quantization}) for llama.cpp.",
                    "ollama": "This repository holds the merged model as a GGUF file ({quantization}) with a Modelfile "
                              "for Ollama."},
        "compared_texts": "Its texts were compared with the trained model's on {n} validation rows (greedy): the same "
                          "prompt in {same_prompt} rows, the same text in {same_text}. This task does not score "
                          "generated text; the results below are those of the trained model.",
        "turns": "Earlier turns of a row stand before this message as they are; a system message of the row's own "
                 "takes the place of the task's.",
        "start_from": "goes on from",
        "limit_compare": "The results above compare the likelihoods of the two answers of each row; what the model "
                         "writes by itself was not scored.",
        "contract": "`inference.json` holds the prompt, the stop texts, the decoding, the labels and the sha256 of "
                    "every file.",
        "not_compared": "**This export was not compared with the trained model.**",
        "compared": "Compared with the trained model row by row on {n} validation rows (greedy): {metric} {value}, "
                    "{verdict}; the same prompt in {same_prompt} rows, the same text in {same_text}. The results "
                    "below are those of the trained model.",
        "export_verdict": {"better": "better", "not_distinguishable": "not distinguishable", "worse": "worse"},
        "loses": "This number format makes it significantly worse.",
        "ask_served": "Then ask it with any OpenAI-compatible client: the messages above, `temperature` 0, "
                      "`max_tokens` {n}.",
        "answers": "The labels, and what the model writes:", "label": "Label", "answer": "Model writes",
        "prompt": "The prompt that must be used",
        "prompt_note": "Every training row looked like this; change a word and the results below no longer hold. "
                       "Render it with the chat template of this repository's tokenizer and put your input in place "
                       "of the braces.",
        "system": "System message:", "no_system": "There is no system message.", "user": "User message:",
        "nfkc": "Before they enter the prompt, texts are normalized to Unicode NFKC (full-width letters become ASCII).",
        "few_shot": "{n} worked examples from the training data stood before each question. They are training data "
                    "and are not published; without them the results are not guaranteed.",
        "results": "Results", "split": {"validation": "validation", "test": "test", "train": "training"},
        "results_on": "On {n} {split} rows; every system answered exactly the same rows.",
        "validation_only": "**There is no result on a test set.** These are validation numbers; the validation rows "
                           "may have been used to choose the model, so the numbers may be optimistic.",
        "decoding": {"score": "Decoding: the likelihoods of the label answers are compared, the highest wins.",
                     "generate": "Decoding: the model writes freely, and the text is parsed.",
                     "compare": "Decoding: the mean log-probability of a token of each row's two answers is compared; "
                                "the better answer should be likelier.", "none": ""},
        "system_name": "System", "interval": "{metric} (95 % interval)",
        "difference": "Fine-tuned minus it (95 % interval)", "verdict": "Verdict", "finetuned": "Fine-tuned model",
        "better": "fine-tuned is better", "worse": "fine-tuned is worse",
        "not_distinguishable": "not distinguishable", "undefined": "undefined",
        "interval_note": "Intervals: bootstrap over rows. Verdicts: paired bootstrap of the primary metric.",
        "no_baselines": "There is no baseline on the same rows to compare with.",
        "gate_passed": "Quality gate: passed{target}.", "gate_failed": "Quality gate: **not passed**{target}.",
        "target": " (target of the primary metric: {target})",
        "per_class": "Per class", "precision": "Precision", "recall": "Recall", "f1": "F1", "support": "Rows",
        "data": "Training data", "item": "Item", "value": "Value",
        "data_note": "The data belongs to the owner of the task and is not published with the model.",
        "counts": {"rows": "Training rows", "tokens": "Tokens in the training rows",
                   "trained_tokens": "Tokens that count in the loss", "steps": "Optimizer steps",
                   "trainable_parameters": "Trainable parameters"},
        "rows_of": "Rows for {split}",
        "training": "Training setup",
        "final": {"train_loss": "Training loss (mean)", "eval_loss": "Validation loss (last)"},
        "versions": "Versions",
        "use": "How to use", "login": "If the repository is private, run `hf auth login` first.",
        "code_text": "the text to answer", "code_few_shot": "{n} worked examples of the training data, not published",
        "code_local": "a local folder when this was trained, not published",
        "limits": "Limitations",
        "limit_builtin": "The base model in training and evaluation was a copy of `{base}` whose weights are *{note}*; "
                         "with the original weights the output may differ slightly from the results above.",
        "limit_local": "The base model was the local folder `{base}`, which is not published.",
        "limit_local_adapter": "The adapter cannot be used without that base model.",
        "limit_interval": "The results rest on {n} {split} rows: the 95 % interval of {metric} is {width} wide "
                          "({low} to {high}), and models closer than that cannot be told apart on these rows.",
        "limit_undefined": "{metric} is undefined on these rows.",
        "limit_score": "The results above compare the likelihoods of the label answers; the code above lets the model "
                       "write freely, and it may write something that is no label.",
        "limit_domain": "Evaluated on this task's own data only; how it does on other domains, languages or formats is "
                        "unknown.",
        "limit_bias": "Wrong labels and biases in the training data were learned as well.",
        "license": "License", "license_own": "This model: `{license}`.",
        "license_none": "The owner has not named a license for this model; until then, assume no right to use it.",
        "license_base": "Base model: `{license}`.",
        "license_base_unknown": "Base model: see the license terms of {base}.",
    },
}  # fmt: skip

DATASET_CARD = {
    "zh-TW": {
        "generated": "這份說明由 `scripts/05_upload_hf.py --dataset` 產生；數字都來自 `manifest.json` 與 "
                     "`docs/data_report.json`。",
        "what": "這是什麼資料",
        "what_text": "共 {n} 列，分成 {splits} 份，任務類型是 `{task_type}`。"
                     "每一列是一則完整的對話：提示，以及模型應寫出的答案。資料供微調與評估語言模型使用。",
        "scripts": "文字是繁體還是簡體：", "script": "繁簡",
        "script_name": {"traditional": "繁體", "simplified": "簡體", "mixed": "繁簡混用", "none": "無法判斷"},
        "rows": "列數", "unknown": "未知",
        "format": "欄位與格式", "format_text": "每個檔案是 JSON lines（UTF-8），一行一列。",
        "column": "欄位", "meaning": "意義", "field": "欄位", "raw_column": "原始資料中的欄名",
        "columns": {
            "id": "列的編號：原始檔名與行號", "source": "原始檔案與行號", "record": "檢查過的內容，依任務的欄位",
            "prompt": "給模型的訊息（`role`、`content`），已含指示", "completion": "模型應寫出的訊息",
        },
        "few_shot": "每則提示之前放了 {n} 則訓練資料中的示範問答。", "system": "每則提示的開頭是任務的系統訊息。",
        "nfkc": "文字先做過 Unicode NFKC 正規化（全形英數轉半形等）。",
        "example": "格式如下。**這是示意，不是資料中的列**；指示也是任務類型的預設，不是這個任務的指示：",
        "splits": "切分", "split": "份", "share": "比例", "origin": "來由", "own_file": "擁有者自己分好的檔案",
        "remainder": "抽出其他份之後的其餘各列", "drawn": "抽出，目標 {share}",
        "equal_texts": "相同的文字（不計全半形、大小寫與空白）只在其中一份。",
        "by_seed": "分層抽樣，讓各份的標籤比例接近；亂數種子 {seed}。",
        "by_time": "依欄位「{column}」的時間：舊的列訓練，新的列測試。",
        "by_group": "欄位「{column}」的值相同的列，都在同一份。",
        "near": "相似的文字（字元 n-gram 的 Jaccard 相似度達 {similarity}）放在同一份，除非它們連成的一串太長，"
                "超過最小一份的一半。",
        "no_near": "切分時沒有比對相似的文字。",
        "nothing_drawn": "每一份都是擁有者自己的檔案，沒有抽樣。",
        "made_of": "由 {columns}",
        "labels": "標籤", "label": "標籤", "answer": "模型要寫出的文字",
        "many_labels": "共有 {n} 種標籤；各份的列數見 `manifest.json`。",
        "several_labels": "一列有多個標籤時，每個標籤各計一次。",
        "checks": "檢查",
        "checks_text": "原始資料的每一列都由 `scripts/01_validate_data.py` 檢查：編碼與格式、必要欄位與標籤、"
                       "重複與互相矛盾的列、各份之間的洩漏、文字中的異常字元、個人資料。",
        "checked": "讀到 {rows} 列，其中 {readable} 列可用。", "code": "代碼", "findings": "發現的次數",
        "no_findings": "沒有發現問題。",
        "personal_data": "個人資料", "kind": "種類",
        "no_personal_data": "自動檢查沒有發現個人資料。",
        "reviewed": "擁有者已逐項看過以上發現，認為資料可以照現在的樣子提供。",
        "not_reviewed": "**以上發現還沒有人確認。** 在確認之前，請勿把這份資料交給任何人。",
        "personal_data_limits": "自動檢查只認得有固定形式的資料，例如電話、電子郵件、證件號碼；"
                                "姓名、地址與其他能認出個人的內容不在其中，是否存在未知。",
        "source": "來源與授權", "file": "原始檔案",
        "source_text": "原始檔案由任務擁有者提供，不在本儲存庫中；它們從何而來、如何收集與標註，沒有紀錄，因此未知。",
        "license": "授權：`{license}`。", "no_license": "授權未知：擁有者尚未指定；在指定之前，請勿假設任何使用權。",
        "limits": "限制",
        "limit_contradicting": "有 {n} 列與另一列文字相同、標籤不同；每對之中至多一列是對的。",
        "limit_test": "測試集有 {n} 列；列數少時，模型之間的小差距分不出高下。", "limit_no_test": "沒有測試集。",
        "limit_interval": "測試集有 {n} 列：主要指標在 {level} 附近時，95 % 區間約為正負 {half_width}；"
                          "差距比這小的模型分不出高下。",
        "limit_near": "各份之間是否有相似的文字，未知。",
        "limit_labels": "標籤取自原始資料；標註錯誤的比例未知。",
        "limit_checks": "自動檢查只找得到它認得的問題；沒有發現不等於沒有。",
        "limit_domain": "資料能否代表其他領域、時期或族群，未知。",
        "use": "使用方式", "login": "儲存庫若為私有，先執行 `hf auth login`。",
    },
    "en": {
        "generated": "Written by `scripts/05_upload_hf.py --dataset`; every number comes from "
                     "`manifest.json` and `docs/data_report.json`.",
        "what": "What this data is",
        "what_text": "{n} rows in {splits} splits for a task of type `{task_type}`. Each row is one whole "
                     "conversation: the prompt, and the answer that a model should write. It is meant for fine-tuning "
                     "and evaluating language models.",
        "scripts": "Chinese script of the texts:", "script": "Script",
        "script_name": {"traditional": "Traditional", "simplified": "Simplified", "mixed": "both",
                        "none": "cannot be told"},
        "rows": "Rows", "unknown": "unknown",
        "format": "Columns and format", "format_text": "Each file is JSON lines (UTF-8), one row a line.",
        "column": "Column", "meaning": "Meaning", "field": "Field", "raw_column": "Column in the raw data",
        "columns": {
            "id": "number of the row: raw file and line", "source": "raw file and line",
            "record": "the checked content, by the fields of the task",
            "prompt": "messages for the model (`role`, `content`), instruction included",
            "completion": "the message that the model should write",
        },
        "few_shot": "{n} worked examples from the training data stand before each prompt.",
        "system": "Each prompt begins with the task's system message.",
        "nfkc": "Texts were normalized to Unicode NFKC (full-width letters become ASCII).",
        "example": "The form is as follows. **This is an illustration, not a row of the data**; its instruction is the "
                   "task type's default, not that of this task:",
        "splits": "Splits", "split": "Split", "share": "Share", "origin": "Where from",
        "own_file": "a file of the owner's own", "remainder": "the rows that were not drawn for another split",
        "drawn": "drawn, {share} wanted",
        "equal_texts": "Equal texts (width, case and white space apart) are in one split only.",
        "by_seed": "Drawn by strata, so that the shares of the labels are close; random seed {seed}.",
        "by_time": "By the time in column \"{column}\": old rows train, new rows test.",
        "by_group": "Rows with the same value in column \"{column}\" are in one split.",
        "near": "Nearly equal texts (Jaccard similarity of character n-grams at least {similarity}) are in one split, "
                "unless a chain of them is longer than half of the smallest split.",
        "no_near": "Nearly equal texts were not looked for when the splits were drawn.",
        "nothing_drawn": "Every split is a file of the owner's own; nothing was drawn.",
        "made_of": "made of {columns}",
        "labels": "Labels", "label": "Label", "answer": "Model writes",
        "many_labels": "There are {n} labels; `manifest.json` has their rows by split.",
        "several_labels": "A row with several labels counts for each of them.",
        "checks": "Checks",
        "checks_text": "Every row of the raw data went through `scripts/01_validate_data.py`: encoding and form, "
                       "required fields and labels, duplicates and contradictions, leakage between splits, odd "
                       "characters, personal data.",
        "checked": "{rows} rows were read, {readable} of them usable.", "code": "Code", "findings": "Findings",
        "no_findings": "Nothing was found.",
        "personal_data": "Personal data", "kind": "Kind",
        "no_personal_data": "The automatic check found no personal data.",
        "reviewed": "The owner has looked at each of these findings and holds that the data may be shared as it is.",
        "not_reviewed": "**Nobody has confirmed these findings yet.** Until then, do not hand this data to anyone.",
        "personal_data_limits": "The automatic check knows data of a fixed form, such as telephone numbers, e-mail "
                                "addresses and identity numbers. Names, addresses and whatever else points to a person "
                                "are not among them; whether there are any is unknown.",
        "source": "Source and license", "file": "Raw file",
        "source_text": "The raw files belong to the owner of the task and are not in this repository. Where they come "
                       "from and how they were collected and labelled is not on record, and so unknown.",
        "license": "License: `{license}`.",
        "no_license": "License unknown: the owner has not named one; until then, assume no right to use the data.",
        "limits": "Limitations",
        "limit_contradicting": "{n} rows have the text of another row and a different label; of each pair, at most one "
                               "is right.",
        "limit_test": "The test split has {n} rows; with few rows, small differences between models cannot be told.",
        "limit_no_test": "There is no test split.",
        "limit_interval": "The test split has {n} rows: near {level}, the 95 % interval of the primary metric is about "
                          "± {half_width}; models closer than that cannot be told apart.",
        "limit_near": "Whether nearly equal texts stand in two splits is unknown.",
        "limit_labels": "Labels are those of the raw data; how many of them are wrong is unknown.",
        "limit_checks": "Automatic checks find what they know; nothing found does not mean nothing there.",
        "limit_domain": "Whether the data stands for other domains, times or groups of people is unknown.",
        "use": "How to use", "login": "If the repository is private, run `hf auth login` first.",
    },
}  # fmt: skip
