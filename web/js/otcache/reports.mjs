// What nodes reported that have no outputs of their own which the server would keep: OT Apply Cache and OT Auto Cache.
const KEY = "otcache.reports"
const KEPT = 32 // of all workflows of this browser tab

/** [{prompt, path, strip}], the newest last, as long as the browser tab is open. */
export const reports = {
  all() {
    try {
      return JSON.parse(sessionStorage.getItem(KEY)) ?? []
    } catch {
      return [] // not ours, or the browser keeps nothing
    }
  },
  find(prompt, path) {
    return this.all().findLast((report) => report.prompt === prompt && report.path === path)?.strip
  },
  add(report) {
    try {
      sessionStorage.setItem(KEY, JSON.stringify([...this.all(), report].slice(-KEPT)))
    } catch {
      // full: the report is gone after a reload, as if there had been no run
    }
  },
}
