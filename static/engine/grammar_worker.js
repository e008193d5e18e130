/** @import { Constraint } from "./grammar.js" */
/** @import { FromGrammarWorker, GrammarQuestion, ToGrammarWorker } from "./grammars_in_worker.js" */
import { WebGemmaError } from "./errors.js";
import { Grammars } from "./grammar.js";
import { holdWhileAlive } from "./liveness.js";
import { Vocabulary } from "./vocabulary.js";

/** @type {Grammars | null} */
let grammars = null;
/** @type {Map<number, Constraint>} */
const constraints = new Map();

/** @type {(message: FromGrammarWorker, transfer?: Transferable[]) => void} */
const post = (message, moved = []) => self.postMessage(message, { transfer: moved });

self.addEventListener("message", (/** @type {MessageEvent<ToGrammarWorker>} */ { data }) => {
  if (data.type === "start") {
    grammars = new Grammars(new Vocabulary(data.pieces, data.specialIds), data.vocabSize, data.stopIds);
    holdWhileAlive(data.lock, () => post({ type: "alive" }));
  } else if (data.type === "dispose") {
    constraints.get(data.id)?.dispose();
    constraints.delete(data.id);
  } else {
    void answer(data);
  }
});

/** @param {GrammarQuestion} question */
async function answer(question) {
  const { id } = question;
  try {
    if (question.type === "constraint") constraints.set(id, await /** @type {Grammars} */ (grammars).constraint(question.format));
    const constraint = /** @type {Constraint} */ (constraints.get(id));
    if (question.type === "accept") await constraint.accept(question.ids);
    const mask = await constraint.mask();
    post({ type: "mask", id, mask }, [mask.buffer]);
  } catch (error) {
    post({ type: "error", id, error: WebGemmaError.from(error).toRecord() });
  }
}
