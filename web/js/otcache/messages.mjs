// Texts that the server sends, in Chinese: reports, warnings, what a schedule says of itself, progress.
import { templates } from "./messages_zh.mjs"

const LONGEST = 2000 // characters; what is longer is none of ours, and patterns take their time
const DEEPEST = 4 // texts within texts
const WITHIN = 3 // joints such as "; " that a template itself has, at most
const NUMBER = "[-+]?(?:\\d+(?:\\.\\d+)?(?:e[-+]?\\d+)?|inf|nan)"
const NAME = "(?:(?!; ).)+?" // on one line, and not beyond a sentence
const JOINTS = { "; ": "；", ". ": "。" }
const PLACE = /\{(\w+)\}/g
const isNumber = (place) => place.length === 1
const isText = (place) => place === place.toUpperCase()
const rules = Object.entries(templates).map(([english, chinese]) => ({ pattern: patternOf(english), chinese }))

/** The pattern of a template; see messages_zh.mjs for how one is written. */
function patternOf(english) {
  const parts = english.split(PLACE).map((part, i) => {
    if (i % 2 === 0) return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("\\(s\\)", "s?")
    return `(?<${part}>${isNumber(part) ? NUMBER : isText(part) ? ".+?" : NAME})`
  })
  return new RegExp(`^${parts.join("")}$`, "i") // a sentence may begin with a capital or within another
}

/** `text` in Chinese, each of its lines and joined sentences by itself; what is not known stays as it is. */
export function translated(text) {
  if (typeof text !== "string" || text.length > LONGEST) return text
  return text.split("\n").map((one) => line(one)).join("\n")
}

/**
 * A progress text such as "OT Anchor Search: starting" in Chinese, or as it is where that is not known.
 * titles: node id -> {display_name}, as in locales/zh/nodeDefs.json.
 */
export function translatedProgress(text, titles) {
  const [, title, said] = /^(OT [A-Za-z ]+): (.+)$/.exec(text) ?? []
  const name = title && Object.hasOwn(titles, title.replaceAll(" ", "")) && titles[title.replaceAll(" ", "")].display_name
  const chinese = name ? translated(said) : said
  return chinese === said ? text : `${name}：${chinese}`
}

/** One line: as a whole, or joined sentences one after another, of which those are taken together that one template knows. */
function line(text, depth = 0) {
  const parts = text.split(/(; |\. )/) // sentences, and the joints between them
  let all = ""
  for (let at = 0; at < parts.length; ) {
    const ends = at === 0 && parts.length > 2 * WITHIN + 1 ? [parts.length] : [] // a text within may be any number of sentences
    for (let end = Math.min(at + 2 * WITHIN + 1, parts.length); end > at; end -= 2) ends.push(end)
    let [known, next] = [null, at + 1]
    for (const end of ends) {
      known = sentence(parts.slice(at, end).join(""), depth)
      if (known === null) continue
      next = end
      break
    }
    const joint = parts[next] ?? ""
    all += known === null ? parts[at] + joint : known + (JOINTS[joint] ?? "")
    at = next + 1
  }
  return all
}

/** What one template, or a list of known words, is in Chinese; null where none is. */
function sentence(text, depth) {
  const bare = text.replace(/\.$/, "")
  const chinese = filled(bare, depth) ?? list(bare, depth)
  return chinese === null || bare === text ? chinese : `${chinese}。`
}

function filled(text, depth) {
  for (const { pattern, chinese } of rules) {
    const found = pattern.exec(text)
    if (!found) continue
    const inside = (place) => (isText(place) && depth < DEEPEST ? line(found.groups[place], depth + 1) : found.groups[place])
    return chinese.replace(PLACE, (_, place) => inside(place))
  }
  return null
}

/** "recording full runs, 3 of 8": all of it or nothing, for a comma may stand in any sentence. */
function list(text, depth) {
  if (!text.includes(", ")) return null
  const words = text.split(", ").map((word) => filled(word, depth))
  return words.includes(null) ? null : words.join("，")
}
