// @vitest-environment jsdom
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { translated, translatedProgress } from "../../web/js/otcache/messages.mjs"
import { templates } from "../../web/js/otcache/messages_zh.mjs"
import { Note } from "../../web/js/otcache/note.mjs"
import { budgetFoot, noteText, runLabels, scheduleFoot, wordsFor } from "../../web/js/otcache/words.mjs"

const zh = wordsFor("zh")
const titles = JSON.parse(readFileSync("locales/zh/nodeDefs.json", "utf8"))
const places = (text) => new Set(text.match(/\{\w+\}/g) ?? [])

describe("a text of the server", () => {
  it("keeps its numbers and names", () => {
    const made = "the schedule was made on another Flux (checkpoint, merge or precision): one made on this would be better"
    expect(translated(made)).toBe("调度表是在另一个 Flux 上制作的（模型文件、合并或精度不同）：在此模型上制作的会更好")
    expect(translated("the run starts at sigma 1.2e-05, but the schedule begins at 14.61; use a schedule made for this model"))
      .toBe("运行从 sigma 1.2e-05 开始，而调度表从 14.61 开始；请使用为此模型制作的调度表")
    expect(["1 evaluation", "2 evaluations"].map((count) => translated(`${count} taught nothing: the network did not run, or ` +
      "guidance zeroed what it gave"))).toEqual([1, 2].map((n) => `${n} 次求值没有可学的内容：网络没有运行，或其输出被引导置零`))
  })

  it("is translated sentence by sentence, whatever joins them", () => {
    expect(translated("learnt from 2 ordinary runs; 7 instead of 10 evaluations by the range, max_skips"))
      .toBe("由 2 次普通运行学得；因规则（范围，最多连续跳过）求值 7 次，而不是 10 次")
    expect(translated("PSNR: 33.00 dB (mean), 30.10 dB (worst, picture 3 of 8)\nequal to the last bit"))
      .toBe("PSNR：33.00 dB（平均），30.10 dB（最差，8 张中第 3 张）\n逐位相同")
    expect(translated("LPIPS: not measured. Pictures of 5 pixels are too small for SSIM; decode at 11 pixels or more."))
      .toBe("LPIPS：未测量。5 像素的图片对 SSIM 太小；请以 11 像素或更大解码。")
  })

  it("is translated within another, a joint and all", () => {
    expect(translated("nothing was learnt: a run of 2000 steps is too long to learn from; sample one of 1000 or fewer"))
      .toBe("没有学到内容：2000 步的运行太长，无法学习；请采样不超过 1000 步的运行")
    expect(translated("cancelled (searching the smallest budget, trial 3 of 60, best 0.0041); queue again to go on"))
      .toBe("已取消（搜索最小的预算，第 3/60 次尝试，最佳 0.0041）；再次排队即可继续")
  })

  it("stays as it is where it is not known, beside others that are", () => {
    for (const text of ["", "A new text; of 3 parts, say. ", "starting, at last", "about 3 pears left of 4", null, undefined, 4]) {
      expect(translated(text)).toBe(text)
    }
    expect(translated("learnt from 1 ordinary run; news of 3")).toBe("由 1 次普通运行学得；news of 3")
    expect(translated("news of 3; learnt from 1 ordinary run")).toBe("news of 3; 由 1 次普通运行学得")
  })

  it("from a stranger's file is a text like any other, and soon done", () => {
    const hostile = "<img src=x onerror=alert(1)>$&$1{n}"
    expect(translated(hostile)).toBe(hostile)
    expect(translated(`the schedule was made on ${hostile}, but this model is constructor: one made on it would be better`))
      .toBe(`调度表是在 ${hostile} 上制作的，而此模型是 constructor：在它上面制作的会更好`)
    const again = ["; ", "a, ", ": ", "1", "0.", "done: but ", "nothing was learnt: ", "the schedule was made on ", ", but this model is "]
    const begin = performance.now()
    for (const part of again) for (const length of [1999, 100_000]) translated(part.repeat(length / part.length))
    expect(performance.now() - begin).toBeLessThan(3000)
    const note = new Note("compared", zh, "", 6)
    note.take({ kind: "compared", text: "<b>x</b>: not measured. <i>y</i>" }, "22:49")
    expect(note.element.innerHTML)
      .toBe("之前的运行，22:49\n&lt;b&gt;x&lt;/b&gt;：未测量。&lt;i&gt;y&lt;/i&gt;")
  })
})

describe("progress", () => {
  it("bears the node's Chinese title", () => {
    expect(translatedProgress("OT Reference Schedule: recording full runs, 3 of 8, about 40 s left", titles))
      .toBe("OT 参考调度：记录完整运行，3/8，约剩 40 秒")
    expect(translatedProgress("OT Anchor Search: done: 8 to 15 evaluations", titles)).toBe("OT 锚点搜索：完成：求值 8 到 15 次")
    expect(translatedProgress("OT Auto Cache: rehearsing 1 of 4, 9 evaluations", titles)).toBe("OT 自动缓存：排练 1/4，求值 9 次")
  })

  it.each(["starting", "Other Node: starting", "OT constructor: starting", "OT Compare X: starting", "OT Anchor Search: a new stage", "", undefined])(
    "of others, or not known, stays: %s", (text) => expect(translatedProgress(text, titles)).toBe(text),
  )

  it("stays where the server knows no titles", () => {
    expect(translatedProgress("OT Anchor Search: starting", {})).toBe("OT Anchor Search: starting")
  })
})

describe("strips and notes in Chinese", () => {
  const sampler = "the sampler asks with different prompts, guidance or latents in turn"
  const run = { evaluations: 4, computed: [1, 0], ideal: 2, level: "output" }

  it("say what the server says", () => {
    expect(runLabels(zh, { ...run, reason: sampler }).foot).toBe("全部计算：采样器轮流使用不同的提示词、引导或 latent")
    expect(runLabels(zh, { ...run, note: "learnt from 1 ordinary run", level_reason: "the model runs on several GPUs" }).foot)
      .toBe("由 1 次普通运行学得，无法复用块：模型在多个 GPU 上运行")
    expect(runLabels(zh, { ...run, warning: "reference and anchor were made on A and B: what lies between suits neither" }).foot)
      .toBe("注意：参考和锚点分别是在 A 和 B 上制作的：介于两者之间的对哪个都不合适")
    expect(budgetFoot(zh, { warning: "the model runs on several GPUs" })).toBe("注意：模型在多个 GPU 上运行")
    expect(scheduleFoot(zh, { source: "changed steps; my own words" })).toBe("未注明所属模型\n步已更改；my own words")
    expect(noteText(zh, { kind: "compared", text: "Made with other settings: cfg 4 against 5; steps 20 against 7.\nRMSE: 0.01000" }))
      .toBe("设置不同：cfg 4 与 5；steps 20 与 7。\nRMSE: 0.01000\n下图从左到右：缓存结果、完整运行、差异")
  })

  it("say it in English elsewhere", () => {
    expect(runLabels(wordsFor("en"), { ...run, reason: sampler }).foot).toBe(`computed in full: ${sampler}`)
  })
})

describe("the catalogue", () => {
  it.each(Object.entries(templates))("gives every place of: %s", (english, chinese) => {
    expect(places(chinese)).toEqual(places(english))
    expect(chinese).toMatch(/[\u4e00-\u9fff]|^\{k\}\/\{n\}$/)
  })

  it("lets no template be hidden by one before it", () => {
    for (const [english, chinese] of Object.entries(templates)) {
      const fill = (text, isChinese) => text.replaceAll("(s)", isChinese ? "(s)" : "s").replace(/\{(\w)\}/g, "7").replace(/\{\w+\}/g, "x")
      expect(translated(fill(english, false))).toBe(fill(chinese, true))
    }
  })
})
