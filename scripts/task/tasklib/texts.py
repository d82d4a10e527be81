"""The words of generated reports, in the task's language. One dictionary for each document."""

from __future__ import annotations

DATA_REPORT = {
    "zh-TW": {
        "title": "資料報告", "intro": "由 `scripts/01_validate_data.py` 產生，請勿手改。", "rows": "資料列數",
        "readable": "通過檢查", "errors": "錯誤", "warnings": "警告", "labels": "類別分布", "label": "類別",
        "answer": "模型輸出", "count": "列數", "share": "比例", "length": "文字長度（字元）", "problems": "發現的問題",
        "answer_lengths": "答案的長度", "measure": "量什麼",
        "measured": {"answer": "模型要寫的答案（字元）", "items": "答案的項目數", "chosen": "chosen（字元）",
                     "rejected": "rejected（字元）"},
        "none": "沒有發現問題。", "code": "代碼", "place": "位置", "message": "說明", "hint": "建議",
        "minimum": "最短", "median": "中位數", "p95": "第 95 百分位", "maximum": "最長", "more": "其餘 {n} 項未列出",
        "files": "檔案", "file": "檔案", "split": "切分", "read_as": "讀成", "encoding": "編碼",
        "interval": "這份測試集能分辨多小的差距",
        "interval_text": "測試集有 {n} 列。若 {metric} 在 {level:.2f} 左右，95 % 區間約為 ±{half:.3f}；"
                         "要縮到 ±{wanted:.2f}，測試集約需 {needed} 列。比這更小的進步，這份測試集看不出來。",
    },
    "en": {
        "title": "Data report", "intro": "Written by `scripts/01_validate_data.py`; do not edit.", "rows": "Rows",
        "readable": "Passed", "errors": "Errors", "warnings": "Warnings", "labels": "Labels", "label": "Label",
        "answer": "Model writes", "count": "Rows", "share": "Share", "length": "Text length (characters)",
        "answer_lengths": "Length of the answers", "measure": "What",
        "measured": {"answer": "what the model is to write (characters)", "items": "items of an answer",
                     "chosen": "chosen (characters)", "rejected": "rejected (characters)"},
        "problems": "Problems found", "none": "No problems found.", "code": "Code", "place": "Place",
        "message": "What", "hint": "Hint", "minimum": "min", "median": "median", "p95": "95th percentile",
        "maximum": "max", "more": "{n} more not listed",
        "files": "Files", "file": "File", "split": "Split", "read_as": "Read as", "encoding": "Encoding",
        "interval": "How small a difference this test split can show",
        "interval_text": "The test split has {n} rows. With {metric} around {level:.2f}, its 95 % interval will be "
                         "about ±{half:.3f}; ±{wanted:.2f} takes about {needed} test rows. A smaller gain cannot be "
                         "seen.",
    },
}  # fmt: skip

REPORT = {
    "zh-TW": {
        "title": "評估報告", "split": {"validation": "驗證集", "test": "測試集", "train": "訓練集"}, "rows": "列",
        "system": "系統", "metric_ci": "{metric}（95 % 區間）", "delta": "差距（本模型減該系統）", "verdict": "判定",
        "better": "本模型較好", "worse": "本模型較差", "not_distinguishable": "無法區分",
        "systems": {"finetuned": "微調模型", "served": "本模型 {run}", "majority": "多數類別",
                    "tfidf_logreg": "TF-IDF + 邏輯迴歸", "zero_shot": "未微調的基礎模型",
                    "few_shot": "未微調的基礎模型，附 {n} 個範例", "previous_best": "先前最好的 {run}"},
        "per_class": "各類別表現", "label": "類別", "precision": "精確率", "recall": "召回率", "f1": "F1",
        "support": "列數", "confusion": "混淆矩陣", "gold": "正解", "predicted": "預測", "unparsed": "無法解析",
        "errors": "答錯的列（信心最高者在前）", "text": "文字", "probability": "信心", "gate": "品質門檻",
        "gate_passed": "通過", "gate_failed": "未通過", "decoding": "解碼方式", "comparison": "與基準的比較",
        "other_metrics": "其他指標", "metric": "指標", "value": "數值", "interval": "95 % 區間", "id": "編號",
        "more_errors": "只列出前 {shown} 列，共 {total} 列答錯；全部在 predictions.jsonl。",
        "verdict_sentence": "在{split}的 {n} 列上，{score}{outcome}。",
        "score_one": "{metric} 為 {value}（95 % 區間 {low} 到 {high}）",
        "score_seeds": "{n_seeds} 個種子的 {metric} 平均為 {value} ± {sd}（標準差；95 % 區間 {low} 到 {high}）",
        "score_undefined": "{metric} 無定義",
        "outcome_passed": "：通過品質門檻", "outcome_failed": "：未通過品質門檻", "outcome_none": "；沒有品質門檻",
        "note": "區間：列的 bootstrap。判定：主要指標的配對 bootstrap；差距的 95 % 區間不含 0，且經 Holm 校正的 p 值"
                "不超過 0.05，才算分出高下。McNemar 檢定只看每列對錯，僅供參考。",
        "undefined": "無定義", "gate_none": "未設門檻", "p_value": "p 值", "p_value_holm": "p 值（Holm）",
        "mcnemar_p_value": "p 值（McNemar）", "target": "目標", "best": "最佳",
        "label_with_answer": "{label}（{answer}）", "reasons": "未通過的原因", "warnings": "警告",
        "n_failed": "{n} 列沒有得到端點的回答，算作無法解析。", "n_retries": "向端點重送了 {n} 次請求。",
        "n_shortened": "{n} 列的文字太長，依 prompt.shorten 截短後才作答。",
        "errors_open": "未全對的列（單列 {metric} 最低者在前）", "wrong_open": "未全對", "row_score": "單列 {metric}",
        "nothing": "（沒有）", "sides": "比較的答案與每個 token 的平均對數機率",
        "entities": {"right": "正確", "missing": "漏掉", "spurious": "多出"},
        "errors_unranked": "答錯的列", "no_errors": "沒有答錯的列。", "no_match": "沒有符合條件的列。",
        "wrong": "答錯", "search": "搜尋文字、編號或檔案", "all": "全部", "reset": "清除篩選", "at_least": "信心至少",
        "raw_output": "模型輸出", "probabilities": "各類別機率", "other_labels": "其餘 {n} 類",
        "confusion_note": "數字是列數，深淺是佔該正解的比例。",
        "confusion_filter": "點選錯誤的格子，下方只列出那些列；也可用方向鍵移動。",
        "pairs": "最常見的混淆",
        "plot_note": "點是數值，橫線是 95 % 區間。", "sort_note": "點欄名可排序。", "lower_is_better": "越低越好",
        "slices": "分組表現", "whole": "全部的列", "colon": "：", "comma": "、",
        "slices_note": "同一個模型在部分列上的表現。列數少，區間就寬；單看一組不能下定論。少於 10 列的組不算。",
        "slice_by": {"length": "文字長度（字元）", "label": "正解類別", "source": "來源", "script": "繁簡",
                     "target": "目標"},
        "scripts": {"traditional": "繁體", "simplified": "簡體", "mixed": "繁簡混用", "none": "無法判斷"},
        "calibration": "機率校準", "ece_sentence": "校準誤差 ECE 為 {ece}。",
        "calibration_note": "點在虛線下方：模型過度自信；上方：信心不足。點越大，列數越多。",
        "reliability": "可靠度圖：信心與正確率", "confidence_range": "信心區間", "mean_confidence": "平均信心",
        "accuracy": "正確率",
        "seeds": "不同種子", "seeds_note": "同一份設定訓練 {n} 次，只換種子：{runs}。橫線是平均 ± 1 個標準差。",
        "seed": "種子", "mean": "平均", "sd": "標準差", "mean_sd": "平均 ± 標準差", "n_seeds": "{n} 個種子的平均",
        "one_seed": "分組、校準圖、混淆矩陣與答錯的列只來自 {run}（種子 {seed}）。",
        "origin": "由 metrics.json 與 predictions.jsonl 產生，請勿手改。",
    },
    "en": {
        "title": "Evaluation report", "split": {"validation": "validation", "test": "test", "train": "train"},
        "rows": "rows", "system": "System", "metric_ci": "{metric} (95 % interval)",
        "delta": "Difference (this model minus it)", "verdict": "Verdict",
        "better": "this model is better", "worse": "this model is worse",
        "not_distinguishable": "not distinguishable",
        "systems": {"finetuned": "Fine-tuned model", "served": "This model, {run}", "majority": "Majority class",
                    "tfidf_logreg": "TF-IDF + logistic regression", "zero_shot": "Base model, not tuned",
                    "few_shot": "Base model, not tuned, {n} examples", "previous_best": "Best earlier run, {run}"},
        "per_class": "Per class", "label": "Label", "precision": "Precision", "recall": "Recall", "f1": "F1",
        "support": "Rows", "confusion": "Confusion matrix", "gold": "Gold", "predicted": "Predicted",
        "unparsed": "unparsed", "errors": "Wrong rows, most confident first", "text": "Text",
        "probability": "Confidence", "gate": "Quality gate", "gate_passed": "passed", "gate_failed": "not passed",
        "decoding": "Decoding", "comparison": "Against the baselines", "other_metrics": "Other metrics",
        "metric": "Metric", "value": "Value", "interval": "95 % interval", "id": "Id",
        "more_errors": "The first {shown} of {total} wrong rows; all of them are in predictions.jsonl.",
        "verdict_sentence": "On {n} {split} rows, {score}{outcome}.",
        "score_one": "{metric} is {value} (95 % interval {low} to {high})",
        "score_seeds": "{metric} over {n_seeds} seeds is {value} ± {sd} (mean ± sd; 95 % interval {low} to {high})",
        "score_undefined": "{metric} is undefined",
        "outcome_passed": ": gate passed", "outcome_failed": ": gate not passed", "outcome_none": "; no gate",
        "note": "Interval: bootstrap over rows. Verdict: paired bootstrap of the primary metric; better or worse only "
                "when the 95 % interval of the difference leaves out 0 and p, corrected by Holm, is at most 0.05. "
                "McNemar's test looks at right and wrong rows alone and decides nothing.",
        "undefined": "undefined", "gate_none": "no gate", "p_value": "p", "p_value_holm": "p (Holm)",
        "mcnemar_p_value": "p (McNemar)", "target": "Target", "best": "best",
        "label_with_answer": "{label} ({answer})", "reasons": "Why it did not pass", "warnings": "Warnings",
        "n_failed": "{n} rows got no answer from the endpoint and count as unparsed.",
        "n_retries": "{n} requests to the endpoint were sent again.",
        "n_shortened": "{n} texts were too long and were cut by prompt.shorten before they were answered.",
        "errors_open": "Rows that are not wholly right, lowest {metric} first", "wrong_open": "Not wholly right",
        "row_score": "{metric} of the row", "nothing": "(none)",
        "sides": "Answers compared, mean log-probability of a token",
        "entities": {"right": "right", "missing": "missing", "spurious": "spurious"},
        "errors_unranked": "Wrong rows", "no_errors": "No wrong rows.", "no_match": "No row matches.",
        "wrong": "Wrong", "search": "Search text, id or file", "all": "All", "reset": "Clear filters",
        "at_least": "Confidence at least",
        "raw_output": "Model output", "probabilities": "Probability of each label", "other_labels": "{n} others",
        "confusion_note": "Numbers are rows; the shade is the share of that gold label.",
        "confusion_filter": "Select a wrong cell to list only its rows below; arrow keys move between cells.",
        "pairs": "Most frequent confusions",
        "plot_note": "Dot: value. Line: 95 % interval.", "sort_note": "Click a column to sort.",
        "lower_is_better": "lower is better",
        "slices": "Slices", "whole": "all rows", "colon": ": ", "comma": ", ",
        "slices_note": "The same model on parts of the rows. Few rows make wide intervals; one slice alone "
                       "proves nothing. Fewer than 10 rows are not scored.",
        "slice_by": {"length": "Characters", "label": "Gold label", "source": "Source", "script": "Script",
                     "target": "Target"},
        "scripts": {"traditional": "traditional", "simplified": "simplified", "mixed": "mixed", "none": "neither"},
        "calibration": "Calibration", "ece_sentence": "Expected calibration error (ECE): {ece}.",
        "calibration_note": "Dot below the dashed line: overconfident; above it: underconfident. "
                            "The larger the dot, the more rows.",
        "reliability": "Reliability diagram: confidence and accuracy", "confidence_range": "Confidence in",
        "mean_confidence": "Mean confidence", "accuracy": "Accuracy",
        "seeds": "Seeds",
        "seeds_note": "One config trained {n} times with another seed: {runs}. Line: mean ± one standard deviation.",
        "seed": "seed", "mean": "Mean", "sd": "sd", "mean_sd": "Mean ± sd", "n_seeds": "mean of {n} seeds",
        "one_seed": "Slices, calibration plot, confusion matrix and wrong rows: {run} (seed {seed}) alone.",
        "origin": "Rendered from metrics.json and predictions.jsonl; do not edit.",
    },
}  # fmt: skip

# What the classes of `per_class` are, where they are not labels of rows: headings of the report, of a comparison, and
# the columns for their name and number.
CLASSES = {
    "zh-TW": {
        "ner": {"per_class": "各實體類型表現", "class_changes": "各實體類型的變化", "label": "實體類型",
                "support": "實體數"},
        "extraction": {"per_class": "各欄位表現", "class_changes": "各欄位的變化", "label": "欄位", "support": "個數"},
        "entity_sentiment": {"per_class": "各情感表現", "class_changes": "各情感的變化", "label": "情感"},
        "entity_sentiment_pairs": {"per_class": "各情感表現", "class_changes": "各情感的變化", "label": "情感",
                                   "support": "組數"},
        "stance": {"per_class": "各立場表現", "class_changes": "各立場的變化", "label": "立場"},
    },
    "en": {
        "ner": {"per_class": "Per entity type", "class_changes": "Change of each entity type", "label": "Entity type",
                "support": "Entities"},
        "extraction": {"per_class": "Per field", "class_changes": "Change of each field", "label": "Field",
                       "support": "Values"},
        "entity_sentiment": {"per_class": "Per sentiment", "class_changes": "Change of each sentiment",
                             "label": "Sentiment"},
        "entity_sentiment_pairs": {"per_class": "Per sentiment", "class_changes": "Change of each sentiment",
                                   "label": "Sentiment", "support": "Pairs"},
        "stance": {"per_class": "Per stance", "class_changes": "Change of each stance", "label": "Stance"},
    },
}  # fmt: skip

GATE = {
    "zh-TW": {
        "undefined": "{metric} 無定義，無法與目標 {target:.3f} 比較",
        "short_of_target": "{metric} 為 {value:.3f}，距離目標 {target:.3f} 還差 {gap:.3f}",
        "short_of_target_seeds": "{metric} 為 {value:.3f} ± {sd:.3f}（{n} 個種子的平均 ± 標準差），"
                                 "距離目標 {target:.3f} 還差 {gap:.3f}",
        "not_computed": "沒有計算基準 {name}",
        "few_shot_not_computed": "沒有計算基準 few_shot：把 evaluation.n_few_shot 設為 1 以上，再評估一次",
        "no_difference": "與 {name} 的差距無定義，無法比較",
        "not_distinguishable": "與 {name} 無法區分：差距 {delta:+.3f}（95 % 區間 {low:+.3f} 到 {high:+.3f}，"
                               "Holm 校正後 p = {p:.3f}）",
        "worse": "比 {name} 差：差距 {delta:+.3f}（95 % 區間 {low:+.3f} 到 {high:+.3f}，Holm 校正後 p = {p:.3f}）",
    },
    "en": {
        "undefined": "{metric} is undefined and cannot be compared with the target {target:.3f}",
        "short_of_target": "{metric} is {value:.3f}, {gap:.3f} short of the target {target:.3f}",
        "short_of_target_seeds": "{metric} is {value:.3f} ± {sd:.3f} (mean ± sd over {n} seeds), "
                                 "{gap:.3f} short of the target {target:.3f}",
        "not_computed": "the baseline {name} was not computed",
        "few_shot_not_computed": "the baseline few_shot was not computed: set evaluation.n_few_shot to 1 or more and "
                                 "evaluate again",
        "no_difference": "the difference from {name} is undefined and cannot be judged",
        "not_distinguishable": "not distinguishable from {name}: difference {delta:+.3f} "
                               "(95 % interval {low:+.3f} to {high:+.3f}, Holm-corrected p = {p:.3f})",
        "worse": "worse than {name}: difference {delta:+.3f} (95 % interval {low:+.3f} to {high:+.3f}, "
                 "Holm-corrected p = {p:.3f})",
    },
}  # fmt: skip

EXPERIMENT = {
    "zh-TW": {
        "header": "# 實驗 {name}：與 configs/{parent}.yaml 只差一處，原因寫在 hypothesis。\n"
                  "# 訓練與評估：bash scripts/run_pipeline.sh --config configs/{name}.yaml --until evaluate\n"
                  "# 與上一個比較：uv run python scripts/compare_runs.py {name} --against {parent}\n",
        "title": "實驗紀錄",
        "intro": "腳本只會在檔尾加上新的段落，不會改動已有的文字；要補充的話，可以寫在段落之間。",
        "parent": "父實驗", "hypothesis": "假設", "change": "改動", "data": "資料：", "more": "其餘 {n} 項改動",
        "result": "結果", "decision": "決定", "split": {"validation": "驗證集", "test": "測試集"},
        "result_line": "{split} {n} 列，{metric} {value}；減 {against} 為 {delta}，p（Holm）{p}；"
                       "改對 {n_fixed} 列，改錯 {n_broken} 列",
        "decisions": {"better": "採用 {run}：證實較好",
                      "not_distinguishable": "不採用 {run}：與 {against} 無法區分，較簡單的留下",
                      "worse": "不採用 {run}：較差"},
    },
    "en": {
        "header": "# Experiment {name}: differs from configs/{parent}.yaml in one thing; hypothesis says why.\n"
                  "# Train and evaluate: bash scripts/run_pipeline.sh --config configs/{name}.yaml --until evaluate\n"
                  "# Compare:            uv run python scripts/compare_runs.py {name} --against {parent}\n",
        "title": "Experiments",
        "intro": "Scripts append to this file and change nothing in it. Write between their lines as you like.",
        "parent": "Parent", "hypothesis": "Hypothesis", "change": "Change", "data": "data:", "more": "{n} more changes",
        "result": "Result", "decision": "Decision", "split": {"validation": "validation", "test": "test"},
        "result_line": "{n} rows of {split}, {metric} {value}; minus {against} {delta}, p (Holm) {p}; "
                       "{n_fixed} rows fixed, {n_broken} broken",
        "decisions": {"better": "keep {run}: proven better",
                      "not_distinguishable": "drop {run}: not distinguishable from {against}, the simpler one stays",
                      "worse": "drop {run}: worse"},
    },
}  # fmt: skip

SEARCH = {
    "zh-TW": {
        "hypothesis": "搜尋 {keys}：{n} 次試驗裡，驗證集 {metric} 最高的一次（{value:.4f}；{parent} 為 {before}）。"
                      "從多次裡挑最高的，分數偏樂觀",
        "failed": "訓練失敗",
    },
    "en": {
        "hypothesis": "Search of {keys}: the highest validation {metric} of {n} trials ({value:.4f}; {parent}: "
                      "{before}). The best of many is optimistic",
        "failed": "training failed",
    },
}  # fmt: skip

COMPARISON = {
    "zh-TW": {
        "title": "模型比較", "split": {"validation": "驗證集", "test": "測試集"},
        "sentence": "在{split}的 {n} 列上，以 {metric} 與 {reference} 相比：{outcome}。",
        "outcomes": {"better": "{n} 個較好", "worse": "{n} 個較差", "not_distinguishable": "{n} 個無法區分"},
        "better": "較好", "worse": "較差", "not_distinguishable": "無法區分", "reference": "對照", "baseline": "基準",
        "warnings": "警告", "ranking": "排名", "run": "模型", "n_runs": "模型", "against": "對照",
        "value": "{metric}（95 % 區間）",
        "delta": "差距（減 {reference}）", "p_value_holm": "p（Holm）", "verdict": "判定", "undefined": "無定義",
        "fixed": "改對", "broken": "改錯", "fixed_broken": "改對／改錯", "n_seeds": "{n} 個種子",
        "note": "點是數值，橫線是 95 % 區間，虛線是 {reference}。差距的 95 % 區間不含 0，且經 Holm 校正的 p 值"
                "不超過 0.05，才算分出高下。", "baseline_note": "基準只列出來對照，不參加檢定。",
        "best_note": "排第一不等於最好：無法區分的差距，換一批列就可能反過來。",
        "changes": "{run} 減 {reference}", "hypothesis": "假設", "config": "設定的差異", "data": "資料的差異",
        "no_difference": "設定相同。", "per_class": "各類別的變化", "slices": "分組的變化", "label": "類別",
        "support": "列數", "precision": "精確率", "recall": "召回率", "f1": "F1",
        "largest_first": "由大到小。",
        "change_note": "橫線是差距的 95 % 區間；沒有檢定，類別或組別一多，總有幾個碰巧不含 0。",
        "slice_by": {"length": "文字長度（字元）", "source": "來源", "script": "繁簡",
                     "target": "目標"},
        "scripts": {"traditional": "繁體", "simplified": "簡體", "mixed": "繁簡混用", "none": "無法判斷"},
        "rows": "改對與改錯的列", "kind": "變化", "id": "編號", "text": "文字", "gold": "正解", "before": "對照答",
        "after": "模型答", "unparsed": "無法解析", "comma": "、", "nothing": "（沒有）",
        "open": {"fixed": "改好", "broken": "變差", "fixed_broken": "改好／變差", "no_rows": "沒有分數不同的列。",
                 "rows": "變好與變差的列（單列分數變化最大者在前）",
                 "first_seed": "有多個種子的模型，只看第一個種子的答案。"},
        "no_text": "這一列已不在資料裡。", "search": "搜尋文字或編號",
        "all": "全部", "reset": "清除篩選", "n_rows": "列", "no_rows": "沒有對錯不同的列。",
        "no_match": "沒有符合條件的列。",
        "more_rows": "每個模型最多列出 {shown} 列改錯、{shown} 列改對；全部在 {file}。",
        "first_seed": "有多個種子的模型，只看第一個種子答對答錯。", "label_with_answer": "{label}（{answer}）",
        "decoding": "解碼方式", "origin": "由 scripts/compare_runs.py 產生，請勿手改。",
        "notes": {
            "decoding_differs": "{runs} 的解碼方式與 {reference}（{decoding}）不同，沒有列入比較",
            "compared_on_test": "這是測試集上的比較：用測試集挑模型，它就變成了驗證集",
            "benchmark_incomplete": "{run} 的評估結果不完整，沒有列入比較",
            "rows_differ": "只比較所有模型都答過的 {n} 列；任一模型答過、或資料裡現有的共 {total} 列",
            "gold_differs": "{total} 列裡有 {n} 列的正解在評估之後改過，這裡用現在的正解",
            "within_seed_spread": "{run} 與 {reference} 的差距 {delta} 小於種子之間的標準差 {sd}",
        },
    },
    "en": {
        "title": "Runs compared", "split": {"validation": "validation", "test": "test"},
        "sentence": "On {n} {split} rows, by {metric} and against {reference}: {outcome}.",
        "outcomes": {"better": "{n} better", "worse": "{n} worse", "not_distinguishable": "{n} not distinguishable"},
        "better": "better", "worse": "worse", "not_distinguishable": "not distinguishable", "reference": "reference",
        "baseline": "baseline", "warnings": "Warnings", "ranking": "Ranking", "run": "Run", "n_runs": "Runs",
        "against": "Reference",
        "value": "{metric} (95 % interval)", "delta": "Difference (minus {reference})", "p_value_holm": "p (Holm)",
        "verdict": "Verdict", "undefined": "undefined", "fixed": "fixed", "broken": "broken",
        "fixed_broken": "Fixed / broken", "n_seeds": "{n} seeds",
        "note": "Dot: value. Line: 95 % interval. Dashed: {reference}. Better or worse only when the 95 % interval of "
                "the difference leaves out 0 and p, corrected by Holm, is at most 0.05.",
        "baseline_note": "Baselines are listed and not tested.",
        "best_note": "First is not best: a difference that cannot be told apart may turn round on other rows.",
        "changes": "{run} minus {reference}", "hypothesis": "Hypothesis", "config": "Differences of the config",
        "data": "Differences of the data", "no_difference": "The same config.", "per_class": "Change of each class",
        "slices": "Change of each slice", "label": "Label", "support": "Rows", "precision": "Precision",
        "recall": "Recall", "f1": "F1",
        "largest_first": "Largest first.",
        "change_note": "Line: 95 % interval of the difference. Nothing is tested: among many labels or slices some "
                       "leave out 0 by chance.",
        "slice_by": {"length": "Characters", "source": "Source", "script": "Script",
                     "target": "Target"},
        "scripts": {"traditional": "traditional", "simplified": "simplified", "mixed": "mixed", "none": "neither"},
        "rows": "Rows fixed and broken", "kind": "Change", "id": "Id", "text": "Text", "gold": "Gold",
        "before": "Reference", "after": "Run", "unparsed": "unparsed", "comma": ", ", "nothing": "(none)",
        "open": {"fixed": "better", "broken": "worse", "fixed_broken": "Better / worse",
                 "no_rows": "No row is worth more or less than before.",
                 "rows": "Rows that are worth more or less, largest change first",
                 "first_seed": "Of a run with several seeds, the answers are those of the first."},
        "no_text": "This row is no longer in the data.",
        "search": "Search text or id", "all": "All", "reset": "Clear filters", "n_rows": "rows",
        "no_rows": "No row is right in one and wrong in the other.", "no_match": "No row matches.",
        "more_rows": "At most {shown} broken and {shown} fixed rows of each run; all of them are in {file}.",
        "first_seed": "Of a run with several seeds, right and wrong are those of the first.",
        "label_with_answer": "{label} ({answer})", "decoding": "Decoding",
        "origin": "Written by scripts/compare_runs.py; do not edit.",
        "notes": {
            "decoding_differs": "{runs}: decoding differs from that of {reference} ({decoding}); left out",
            "compared_on_test": "runs are compared on test: choosing a run by its test score makes it a validation set",
            "benchmark_incomplete": "the benchmark of {run} is incomplete; left out",
            "rows_differ": "only the {n} rows that all runs answered are compared, of {total} that any of them "
                           "answered or the split holds today",
            "gold_differs": "{n} of {total} rows have got another gold since; today's is used",
            "within_seed_spread": "{run} minus {reference} is {delta}, less than the sd over seeds, {sd}",
        },
        "hints": {
            "decoding_differs": "evaluate them again by the same decoding",
            "compared_on_test": "choose on validation; look at test once, for the run that was chosen",
            "benchmark_incomplete": "evaluate it again with scripts/04_evaluate.py",
            "rows_differ": "evaluate the older runs again on today's data with scripts/04_evaluate.py",
            "gold_differs": "metrics.json of each run still counts the gold it was evaluated with",
            "within_seed_spread": "another seed alone may turn it round: compare more seeds",
        },
    },
}  # fmt: skip
