// All sentences of the strips, in English and Chinese.
import { translated } from "./messages.mjs"
import { ANCHOR_NOT_BELOW, BY_ERROR, BY_HAND, BY_SPEEDUP, NOT_CALIBRATED } from "./schedule.mjs"

const LATENT = "expected latent error" // of otcache_core/calibration/solving.py
const APART = [25, 35] // dB, as the help page of OT Compare says

const en = {
  names: { budget: "Budget strip", run: "Report strip", schedule: "Schedule strip" },
  evaluations: (b, n) => `${b} of ${n} evaluation${n === 1 ? "" : "s"}`,
  upTo: (x) => `up to ${x}x`,
  ideal: (x) => `${x}x ideal`,
  measured: (x, spread) => `${x}x${spread} as fast as in full, measured`,
  nothing: "in full",
  legend: { run: "model runs", skip: "predicted", bars: "time" },
  earlier: (time) => `earlier run, ${time}`,
  measuredError: (e, metric) => `error ${e} (${metric}, measured in calibration)`,
  expectedError: (e, metric) => `error about ${e} (${metric}, between measured budgets)`,
  quality: (db, apart, e, isMeasured) => `about ${db} dB, ${apart}; error ${e}${isMeasured ? " (measured)" : ""}`,
  apart: ["differs at a glance", "differs in details", "hard to tell apart"],
  latentError: (percent) => `latent about ${percent} % off, by what was learnt`,
  unknownError: "error not measured at this budget",
  fullError: "no error: the full run",
  noCalibration: "no calibration here: the error is not known",
  blocks: "transformer blocks reused",
  inFull: (why) => `computed in full: ${why}`,
  learnt: (b, n) => (b === n ? "learnt from this run" : `learnt from this run: the next one makes ${b} of ${n}`),
  noBlocks: (why) => `blocks could not be reused: ${why}`,
  warning: (what) => what,
  extra: (n) => `${n} more than scheduled: conditions changed in mid-run`,
  first: "Run once: the strip then shows which steps run the model, and the error to expect.",
  firstReport: "After a run, this strip shows what was computed and how much faster it was.",
  auto: (label) => `auto: ${label}`,
  notThatGood: (e) => `no measured budget keeps ${e}: every step is run`,
  notThatFast: (n) => `even one evaluation is only ${n}x faster`,
  beyond: (b, n) => `more than the ${n} steps: ${b} counts as ${n}`,
  [NOT_CALIBRATED]: (n) => [`No error was measured on these ${n} steps`, "choose by hand or by speed-up"],
  [ANCHOR_NOT_BELOW]: () => ["The anchor's budget is not below the reference's", "connect another anchor"],
  made: ({ model, sampler, scheduler, shift }) => [
    model ? `made for ${model}` : "does not say for which model", sampler, scheduler, shift && `shift ${shift}`,
  ].filter(Boolean).join(", "),
  carries: ([low, high]) => `carries the budgets ${low} to ${high}`,
  firstSchedule: "Another node gives the name: what is loaded is not known here.",
  firstSaved: "After a run: where the schedule was saved.",
  firstCompared: "After a run: how far the pictures are apart, and the pictures.",
  saved: (path) => `saved: ${path}`,
  beside: "below, from left to right: cached, full, difference",
  ruled: (b) => `budget ${b} changed: error not measured`,
  cells: "Steps: click to force one on or off",
  cell: (step, runs, forced) =>
    `step ${step + 1}: ${runs ? "model runs" : "predicted"}${forced === undefined ? "" : forced ? ", forced on" : ", forced off"}`,
  clear: "clear forced",
  clearAll: "Clear all forced steps",
  forcedNext: (text) => `forced: ${text}`,
  leftOut: (list, n) => `forced names step ${list}, but there are ${n} steps: left out`,
  notForced: ["forced must be step numbers with a sign, such as +3 -7", "each once, and not -1"],
  steps: (list) => `The model runs at steps ${list}.`,
  said: (text) => text, // by the server
  and: ", ",
}

const zh = {
  names: { budget: "预算条", run: "报告条", schedule: "调度条" },
  evaluations: (b, n) => `${n} 步中计算 ${b} 次`,
  upTo: (x) => `最多快 ${x} 倍`,
  ideal: (x) => `理想 ${x} 倍`,
  measured: (x, spread) => `实测速度为完整运行的 ${x}${spread} 倍`,
  nothing: "完整计算",
  legend: { run: "运行模型", skip: "预测", bars: "用时" },
  earlier: (time) => `之前的运行，${time}`,
  measuredError: (e, metric) => `误差 ${e}（${metric}，校准时测得）`,
  expectedError: (e, metric) => `误差约 ${e}（${metric}，由相邻预算推算）`,
  quality: (db, apart, e, isMeasured) => `约 ${db} dB，${apart}；误差 ${e}${isMeasured ? "（测得）" : ""}`,
  apart: ["一眼可见差异", "细节有差异", "难以分辨"],
  latentError: (percent) => `潜变量约偏差 ${percent} %，由学习推算`,
  unknownError: "此预算的误差未测量",
  fullError: "无误差：完整运行",
  noCalibration: "没有校准数据：误差未知",
  blocks: "复用 transformer 块",
  inFull: (why) => `全部计算：${why}`,
  learnt: (b, n) => (b === n ? "已从这次运行学习" : `已从这次运行学习：下一次为 ${n} 步中计算 ${b} 次`),
  noBlocks: (why) => `无法复用块：${why}`,
  warning: (what) => `注意：${what}`,
  extra: (n) => `比计划多 ${n} 次：运行中条件改变`,
  first: "先运行一次：此处将显示哪些步运行模型，以及预期误差。",
  firstReport: "运行后，此处显示计算了哪些步以及加速多少。",
  auto: (label) => `自动：${label}`,
  notThatGood: (e) => `没有测得误差不超过 ${e} 的预算：运行所有步`,
  notThatFast: (n) => `只计算 1 次也只快 ${n} 倍`,
  beyond: (b, n) => `超过 ${n} 步：${b} 按 ${n} 计`,
  [NOT_CALIBRATED]: (n) => [`这 ${n} 步上没有测得误差`, "请选择手动（by hand）或按加速（by speed-up）"],
  [ANCHOR_NOT_BELOW]: () => ["锚点的预算不小于参考的预算", "请连接另一个锚点"],
  made: ({ model, sampler, scheduler, shift }) => [
    model ? `为 ${model} 制作` : "未注明所属模型", sampler, scheduler, shift && `shift ${shift}`,
  ].filter(Boolean).join("，"),
  carries: ([low, high]) => `包含预算 ${low} 到 ${high}`,
  firstSchedule: "名称由另一个节点给出：此处不知道加载的是什么。",
  firstSaved: "运行后：此处显示调度表保存的位置。",
  firstCompared: "运行后：此处显示图像的差异以及图像。",
  saved: (path) => `已保存：${path}`,
  beside: "下图从左到右：缓存结果、完整运行、差异",
  ruled: (b) => `预算 ${b} 已更改：误差未测量`,
  cells: "步骤：点击可强制计算或强制预测",
  cell: (step, runs, forced) =>
    `第 ${step + 1} 步：${runs ? "运行模型" : "预测"}${forced === undefined ? "" : forced ? "，强制计算" : "，强制预测"}`,
  clear: "清除强制",
  clearAll: "清除所有强制的步",
  forcedNext: (text) => `强制：${text}`,
  leftOut: (list, n) => `forced 中的第 ${list} 步超出 ${n} 步：已忽略`,
  notForced: ["forced 须为带符号的步号，例如 +3 -7", "每步一次，且不能是 -1"],
  steps: (list) => `模型运行于第 ${list} 步。`,
  said: translated,
  and: "，",
}

/** Whether a locale such as "zh" or "zh-TW" is a Chinese one. */
export function isChinese(locale) {
  return String(locale ?? "").startsWith("zh")
}

/** The sentences in the language of a locale; English for those without a translation. */
export function wordsFor(locale) {
  return isChinese(locale) ? zh : en
}

/** A factor as people write it: 4.5, 5, 12.5. */
export function factor(value) {
  return String(Number(value.toFixed(1)))
}

/** The line above a budget strip. choose: what chose the budget. */
export function budgetLabel(words, budget, total, choose) {
  const gain = budget === total ? words.nothing : words.upTo(factor(total / budget))
  const label = words.evaluations(budget, total) + words.and + gain
  return choose === BY_ERROR || choose === BY_SPEEDUP ? words.auto(label) : label
}

/**
 * The line below it. error: a number or null; psnr: in dB, or null; isMeasured: whether the calibration judged this budget
 * itself; missed: whether the target was not met. warning: what speaks against the two schedules, or ""; ruledFrom: the budget
 * whose steps were changed by rules, or null.
 */
export function budgetFoot(
  words, { asked, missed, total, error, isMeasured, isFull, metric, psnr, calibrated, warning, ruledFrom = null },
) {
  if (warning) return words.warning(words.said(warning))
  if (missed) return asked.choose === BY_ERROR ? words.notThatGood(asked.target_error) : words.notThatFast(total)
  if (asked.choose === BY_HAND && asked.budget > total) return words.beyond(asked.budget, total)
  if (ruledFrom !== null) return words.ruled(ruledFrom)
  if (isFull) return words.fullError
  if (!calibrated) return words.noCalibration
  if (error === null) return words.unknownError
  const shown = Number(error.toPrecision(3))
  if (metric === LATENT) return words.latentError(Number((100 * error).toPrecision(2)))
  const db = psnr === null && metric === "rmse" ? -20 * Math.log10(error) : psnr
  if (db !== null) return words.quality(Math.round(db), words.apart[APART.filter((least) => db >= least).length], shown, isMeasured)
  return isMeasured ? words.measuredError(shown, metric) : words.expectedError(shown, metric)
}

/** Why a run was computed in full; one that taught says so as nodes/host/lesson.py does. */
function inFull(words, reason) {
  const lesson = /^learnt from this run.*; (?:the next one makes (\d+) of (\d+)|(learn is .*))$/.exec(reason)
  if (lesson?.[3]) return words.said(`learnt from this run; ${lesson[3]}`)
  return lesson ? words.learnt(Number(lesson[1]), Number(lesson[2])) : words.inFull(words.said(reason))
}

/** " ± 0.3", or "" where that is too little to be seen or not known. */
function spreadOf({ spread }) {
  const shown = factor(spread ?? 0)
  return shown === "0" ? "" : ` ± ${shown}`
}

/** What stands above and below a report strip; below it the speed, what to do better, and all else, a line each. */
export function runLabels(words, run) {
  const head = [words.evaluations(run.evaluations, run.computed.length)]
  if (run.evaluations === run.computed.length) head.push(words.nothing)
  else head.push(words.ideal(factor(run.ideal)))
  const lines = []
  if (run.measured) lines.push(words.measured(factor(run.measured), spreadOf(run)))
  if (run.hint) lines.push(words.said(run.hint))
  const notes = []
  if (run.reason) notes.push(inFull(words, run.reason))
  if (run.note) notes.push(words.said(run.note))
  if (run.warning) notes.push(words.warning(words.said(run.warning)))
  if (run.level_reason) notes.push(words.noBlocks(words.said(run.level_reason)))
  if (run.extra) notes.push(words.extra(run.extra))
  if (run.level === "blocks" && !run.reason) notes.push(words.blocks)
  return { head: head.join(words.and), foot: [...lines, notes.join(words.and)].filter(Boolean).join("\n") }
}

/** What stands below the strip of a schedule that was loaded, a line each. */
export function scheduleFoot(words, { budgets, source, ...made }) {
  return [words.made(made), budgets && words.carries(budgets), source && words.said(source)].filter(Boolean).join("\n")
}

/** The lines of a note. data: what OT Save Schedule or OT Compare sent; isEarlier: in another run, whose pictures are not here. */
export function noteText(words, data, isEarlier = false) {
  if (data.kind === "compared") return [words.said(data.text), isEarlier ? "" : words.beside].filter(Boolean).join("\n")
  const { path, steps, budget, budgets, model } = data
  return [words.saved(path), words.evaluations(budget, steps), budgets && words.carries(budgets), words.made({ model })]
    .filter(Boolean).join("\n")
}
