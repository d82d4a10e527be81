"""The words of generated reports, in the task's language. One dictionary for each document."""

from __future__ import annotations

DATA_REPORT = {
    "zh-TW": {
        "title": "資料報告", "intro": "由 `scripts/01_validate_data.py` 產生，請勿手改。", "rows": "資料列數",
        "readable": "通過檢查", "errors": "錯誤", "warnings": "警告", "labels": "類別分布", "label": "類別",
        "answer": "模型輸出", "count": "列數", "share": "比例", "length": "文字長度（字元）", "problems": "發現的問題",
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
        "system": "系統", "metric_ci": "{metric}（95 % 區間）", "delta": "差距（微調減該系統）", "verdict": "判定",
        "finetuned": "微調模型", "better": "微調較好", "worse": "微調較差", "not_distinguishable": "無法區分",
        "majority": "多數類別", "tfidf_logreg": "TF-IDF + 邏輯迴歸", "zero_shot": "未微調的基礎模型",
        "per_class": "各類別表現", "label": "類別", "precision": "精確率", "recall": "召回率", "f1": "F1",
        "support": "列數", "confusion": "混淆矩陣", "gold": "正解", "predicted": "預測", "unparsed": "無法解析",
        "errors": "答錯的列（信心最高者在前）", "text": "文字", "probability": "信心", "gate": "品質門檻",
        "gate_passed": "通過", "gate_failed": "未通過", "decoding": "解碼方式", "comparison": "與基準的比較",
        "other_metrics": "其他指標", "metric": "指標", "value": "數值", "interval": "95 % 區間", "id": "編號",
        "more_errors": "只列出前 {shown} 列，共 {total} 列答錯；全部在 predictions.jsonl。",
        "verdict_passed": "在{split}的 {n} 列上，{metric} 為 {value}（95 % 區間 {low} 到 {high}）：通過品質門檻。",
        "verdict_failed": "在{split}的 {n} 列上，{metric} 為 {value}（95 % 區間 {low} 到 {high}）：未通過品質門檻。",
        "note": "區間：列的 bootstrap。判定：主要指標的配對 bootstrap，差距的 95 % 區間不含 0 才算分出高下。",
        "undefined": "無定義", "gate_none": "未設門檻", "p_value": "p 值", "target": "目標", "best": "最佳",
        "verdict_neutral": "在{split}的 {n} 列上，{metric} 為 {value}（95 % 區間 {low} 到 {high}）；沒有品質門檻。",
        "verdict_undefined": "在{split}的 {n} 列上，{metric} 無定義（品質門檻：{gate}）。",
        "label_with_answer": "{label}（{answer}）", "reasons": "未通過的原因", "warnings": "警告",
        "errors_unranked": "答錯的列", "no_errors": "沒有答錯的列。", "no_match": "沒有符合條件的列。",
        "wrong": "答錯", "search": "搜尋文字或編號", "all": "全部", "reset": "清除篩選",
        "raw_output": "模型輸出", "probabilities": "各類別機率", "other_labels": "其餘 {n} 類",
        "confusion_note": "數字是列數，深淺是佔該正解的比例。",
        "confusion_filter": "點選錯誤的格子，下方只列出那些列。",
        "plot_note": "點是數值，橫線是 95 % 區間。", "origin": "由 metrics.json 與 predictions.jsonl 產生，請勿手改。",
    },
    "en": {
        "title": "Evaluation report", "split": {"validation": "validation", "test": "test", "train": "train"},
        "rows": "rows", "system": "System", "metric_ci": "{metric} (95 % interval)",
        "delta": "Difference (fine-tuned minus it)", "verdict": "Verdict",
        "finetuned": "Fine-tuned model", "better": "fine-tuned is better",
        "worse": "fine-tuned is worse", "not_distinguishable": "not distinguishable", "majority": "Majority class",
        "tfidf_logreg": "TF-IDF + logistic regression", "zero_shot": "Base model, not tuned",
        "per_class": "Per class", "label": "Label", "precision": "Precision", "recall": "Recall", "f1": "F1",
        "support": "Rows", "confusion": "Confusion matrix", "gold": "Gold", "predicted": "Predicted",
        "unparsed": "unparsed", "errors": "Wrong rows, most confident first", "text": "Text",
        "probability": "Confidence", "gate": "Quality gate", "gate_passed": "passed", "gate_failed": "not passed",
        "decoding": "Decoding", "comparison": "Against the baselines", "other_metrics": "Other metrics",
        "metric": "Metric", "value": "Value", "interval": "95 % interval", "id": "Id",
        "more_errors": "The first {shown} of {total} wrong rows; all of them are in predictions.jsonl.",
        "verdict_passed": "On {n} {split} rows, {metric} is {value} (95 % interval {low} to {high}): gate passed.",
        "verdict_failed": "On {n} {split} rows, {metric} is {value} (95 % interval {low} to {high}): gate not passed.",
        "note": "Interval: bootstrap over rows. Verdict: paired bootstrap of the primary metric; better or worse only "
                "when the 95 % interval of the difference leaves out 0.",
        "undefined": "undefined", "gate_none": "no gate", "p_value": "p-value", "target": "Target", "best": "best",
        "verdict_neutral": "On {n} {split} rows, {metric} is {value} (95 % interval {low} to {high}); no gate.",
        "verdict_undefined": "On {n} {split} rows, {metric} is undefined (gate: {gate}).",
        "label_with_answer": "{label} ({answer})", "reasons": "Why it did not pass", "warnings": "Warnings",
        "errors_unranked": "Wrong rows", "no_errors": "No wrong rows.", "no_match": "No row matches.",
        "wrong": "Wrong", "search": "Search text or id", "all": "All", "reset": "Clear filters",
        "raw_output": "Model output", "probabilities": "Probability of each label", "other_labels": "{n} others",
        "confusion_note": "Numbers are rows; the shade is the share of that gold label.",
        "confusion_filter": "Select a wrong cell to list only its rows below.",
        "plot_note": "Dot: value. Line: 95 % interval.",
        "origin": "Rendered from metrics.json and predictions.jsonl; do not edit.",
    },
}  # fmt: skip

GATE = {
    "zh-TW": {
        "undefined": "{metric} 無定義，無法與目標 {target:.3f} 比較",
        "short_of_target": "{metric} 為 {value:.3f}，距離目標 {target:.3f} 還差 {gap:.3f}",
        "not_computed": "沒有計算基準 {name}",
        "not_distinguishable": "與 {name} 無法區分：差距 {delta:+.3f}（95 % 區間 {low:+.3f} 到 {high:+.3f}）",
        "worse": "比 {name} 差：差距 {delta:+.3f}（95 % 區間 {low:+.3f} 到 {high:+.3f}）",
    },
    "en": {
        "undefined": "{metric} is undefined and cannot be compared with the target {target:.3f}",
        "short_of_target": "{metric} is {value:.3f}, {gap:.3f} short of the target {target:.3f}",
        "not_computed": "the baseline {name} was not computed",
        "not_distinguishable": "not distinguishable from {name}: difference {delta:+.3f} "
                               "(95 % interval {low:+.3f} to {high:+.3f})",
        "worse": "worse than {name}: difference {delta:+.3f} (95 % interval {low:+.3f} to {high:+.3f})",
    },
}  # fmt: skip
