/**
 * What the page is used for: to correct, to review a reader's label, to settle two readings. A mode says where the data
 * comes from and what may be decided; everything else is the same page.
 *
 * `saves`: what is drawn goes to the server by itself. `base`: the version that changes are counted against;
 * `against`: its name in words.
 *
 * @typedef {{id: string, words: string, button: string, danger?: boolean, needs?: "unchanged"|"changed"|"drawn",
 *   reason?: boolean, drawing?: boolean, explain: string, body: (form: object) => object}} Verdict
 * `drawing: false`: what was drawn has no part in it.
 */

const counted = (n) => `${n.toLocaleString("en")} voxels`;

/** Verdicts of a reader. */
function readerVerdicts(info) {
  if (!info.draft) {
    return [
      {
        id: "correct", button: "Finish", words: "Hand in the segmentation", needs: "drawn",
        explain: "The segmentation you drew is handed in.",
        body: (form) => ({ verdict: "scratch", reason_code: null, remark: form.remark, no_label: false }),
      },
      sendBack(info),
    ];
  }
  return [
    {
      id: "accept", button: "Accept draft", words: "Accept the draft as it is", needs: "unchanged",
      explain: "The draft is right in every structure and is taken over unchanged.",
      body: (form) => ({ verdict: "accept", reason_code: null, remark: form.remark, no_label: false }),
    },
    {
      id: "correct", button: "Hand in correction", words: "Hand in the correction", needs: "changed",
      explain: "Your corrected version is handed in.",
      body: (form) => ({ verdict: "correct", reason_code: null, remark: form.remark, no_label: false }),
    },
    sendBack(info),
  ];
}

function sendBack(info) {
  return {
    id: "reject", button: info.draft ? "Reject draft" : "Send back", danger: true, reason: true,
    words: info.draft ? "Reject the draft" : "Send the exam back without a segmentation",
    explain: "Say why. Some reasons send the exam back without a segmentation; with the others, what you drew anew is handed in.",
    body: (form) => ({ verdict: "reject", reason_code: form.reason, remark: form.remark, no_label: form.noLabel }),
  };
}

export const MODES = {
  work: {
    root: (id) => `/api/work/${id}`,
    back: "/",
    queue: { list: "/api/work", id: "assignment_id", page: "/work" },
    saves: true,
    editable: () => true,
    base: (info) => (info.draft ? "draft" : null),
    against: (info) => (info.draft ? "the draft" : null),
    start: (info) => (info.autosave ? "mask" : info.draft ? "draft" : null),
    versions: (info) => (info.draft ? [{ name: "The draft as it was", path: "draft" }] : []),
    verdicts: readerVerdicts,
    submit: "submit",
    done: "Handed in. It is checked now; you find it in your work list under what you finished.",
  },
  review: {
    root: (id) => `/api/reviews/${id}`,
    back: "/reviews",
    words: "second look",
    queue: { list: "/api/reviews", id: "review_id", page: "/reviews" },
    saves: false,
    editable: () => false,
    base: () => "label",
    against: () => null,
    start: () => "label",
    versions: (info) => (info.draft ? [{ name: "The draft as it was", path: "draft" }] : []),
    verdicts: () => [
      {
        id: "accept", button: "Accept", words: "Accept the reader's segmentation",
        explain: "It goes on into the dataset as it is.",
        body: (form) => ({ decision: "accept", reason_code: null, remark: form.remark }),
      },
      {
        id: "reject", button: "Return", danger: true, reason: true, words: "Return it to the reader",
        explain: "The reader sees the reason and corrects it.",
        body: (form) => ({ decision: "return", reason_code: form.reason, remark: form.remark }),
      },
    ],
    submit: "",
    done: "Your decision is recorded.",
  },
  adjudication: {
    root: (id) => `/api/adjudications/${id}`,
    back: "/adjudications",
    words: "readings that disagree",
    queue: { list: "/api/adjudications", id: "consensus_id", page: "/adjudications" },
    saves: true,
    editable: () => true,
    base: () => "consensus",
    against: () => "the consensus",
    start: (info) => (info.autosave ? "mask" : "consensus"),
    versions: (info) => [
      { name: "Where the readings differ", path: "disagreement", map: true },
      ...(info.readings ?? [1, 2]).map((one, n) => ({
        name: `Reading ${String.fromCharCode(65 + n)}`, path: `reading/${one.n ?? one}`, n: one.n ?? one,
      })),
    ],
    verdicts: (info) => [
      {
        id: "accept", button: "Take the consensus", words: "Take the consensus", needs: "unchanged", drawing: false,
        explain: `The consensus that is shown at first (${info.consensus?.method === "majority" ? "majority" : "STAPLE"}) is taken.`,
        body: () => ({ choose: info.consensus?.method === "majority" ? "majority" : "staple" }),
      },
      ...(info.readings ?? [1, 2]).map((one, n) => ({
        id: `reading.${n}`, button: `Take reading ${String.fromCharCode(65 + n)}`, words: `Take reading ${String.fromCharCode(65 + n)}`,
        explain: "This reading is taken as it is. What you drew yourself, if anything, is not used.", drawing: false,
        body: () => ({ choose: "reading", n: one.n ?? one }),
      })),
      {
        id: "correct", button: "Hand in own version", words: "Hand in your own version", needs: "changed",
        explain: "What you see with your changes is taken.",
        body: () => ({ choose: "own" }),
      },
    ],
    submit: "",
    done: "The readings are settled.",
  },
};

/** The verdict that fits what is on the screen: the one button that stands out. */
export function fitting(verdicts, editor) {
  const wanted = editor?.changed ? ["changed", "drawn"] : ["unchanged"];
  return verdicts.find(({ needs }) => wanted.includes(needs)) ?? verdicts.find(({ needs, danger }) => !needs && !danger) ?? null;
}

/** Why a verdict cannot be given now, in words; null when it can. */
export function obstacle(verdict, editor, draft) {
  const changed = editor?.changed ?? 0;
  if (verdict.needs === "unchanged" && changed > 0) {
    return `You changed ${counted(changed)}. Hand in the correction, or undo your changes.`;
  }
  if (verdict.needs === "changed" && changed === 0) return draft ? "Nothing is changed yet. Accept the draft instead." : "Nothing is changed yet.";
  if (verdict.needs === "drawn" && changed === 0) return "Nothing is drawn yet. If there is nothing to draw, send the exam back with that reason.";
  return null;
}
