// All sentences of the strips, in English and Chinese.
import { ANCHOR_NOT_BELOW, TOO_MANY } from "./schedule.mjs"

const en = {
  name: "Budget strip",
  report: "Report strip",
  evaluations: (b, n) => `${b} of ${n} evaluations`,
  upTo: (x) => `up to ${x}x`,
  ideal: (x) => `${x}x ideal`,
  measured: (x) => `${x}x measured`,
  nothing: "nothing is skipped",
  legend: ["model runs", "predicted"],
  measuredError: (e, metric) => `error ${e} (${metric}, measured in calibration)`,
  expectedError: (e, metric) => `error about ${e} (${metric}, between measured budgets)`,
  unknownError: "error not measured at this budget",
  fullError: "no error: the full run",
  noCalibration: "no calibration here: the error is not known",
  timing: "bars: time of each evaluation",
  blocks: "transformer blocks reused",
  inFull: (why) => `computed in full: ${why}`,
  first: "Run once: the strip then shows which steps run the model, and the error to expect.",
  firstReport: "After a run, this strip shows what was computed and how much faster it was.",
  [TOO_MANY]: (b, n) => `Budget ${b} does not fit the ${n} steps: choose 1 to ${n}.`,
  [ANCHOR_NOT_BELOW]: () => "The anchor's budget must be below the reference's: connect another anchor.",
  steps: (list) => `The model runs at steps ${list}.`,
  and: ", ",
}

const zh = {
  name: "预算条",
  report: "报告条",
  evaluations: (b, n) => `${n} 步中计算 ${b} 次`,
  upTo: (x) => `最多快 ${x} 倍`,
  ideal: (x) => `理想 ${x} 倍`,
  measured: (x) => `实测 ${x} 倍`,
  nothing: "没有跳过任何步",
  legend: ["运行模型", "预测"],
  measuredError: (e, metric) => `误差 ${e}（${metric}，校准时测得）`,
  expectedError: (e, metric) => `误差约 ${e}（${metric}，由相邻预算推算）`,
  unknownError: "此预算的误差未测量",
  fullError: "无误差：完整运行",
  noCalibration: "没有校准数据：误差未知",
  timing: "柱高：每次求值的时间",
  blocks: "复用 transformer 块",
  inFull: (why) => `全部计算：${why}`,
  first: "先运行一次：此处将显示哪些步运行模型，以及预期误差。",
  firstReport: "运行后，此处显示计算了哪些步以及加速多少。",
  [TOO_MANY]: (b, n) => `预算 ${b} 超出 ${n} 步：请选择 1 到 ${n}。`,
  [ANCHOR_NOT_BELOW]: () => "锚点的预算必须小于参考的预算：请连接另一个锚点。",
  steps: (list) => `模型运行于第 ${list} 步。`,
  and: "，",
}

/** The sentences in the language of a locale such as "zh" or "zh-TW"; English for those without a translation. */
export function wordsFor(locale) {
  return String(locale ?? "").startsWith("zh") ? zh : en
}

/** A factor as people write it: 4.5, 5, 12.5. */
export function factor(value) {
  return String(Number(value.toFixed(1)))
}

/** The line above a budget strip. */
export function budgetLabel(words, budget, total) {
  const gain = budget === total ? words.nothing : words.upTo(factor(total / budget))
  return words.evaluations(budget, total) + words.and + gain
}

/** The line below it. error: a number or null; isMeasured: whether the calibration judged this budget itself. */
export function errorLabel(words, { error, isMeasured, isFull, metric, calibrated }) {
  if (isFull) return words.fullError
  if (!calibrated) return words.noCalibration
  if (error === null) return words.unknownError
  const shown = Number(error.toPrecision(3))
  return isMeasured ? words.measuredError(shown, metric) : words.expectedError(shown, metric)
}

/** The lines above and below a report strip. */
export function runLabels(words, run) {
  const head = [words.evaluations(run.evaluations, run.computed.length)]
  if (run.evaluations === run.computed.length) head.push(words.nothing)
  else head.push(words.ideal(factor(run.ideal)))
  if (run.measured) head.push(words.measured(factor(run.measured)))
  const foot = run.reason ? words.inFull(run.reason) : run.level === "blocks" ? words.blocks : words.timing
  return { head: head.join(words.and), foot }
}
