/** Builds the workstation into app/web/static/dist: one page script, one worker, NiiVue as a part loaded when asked for. */
import { rm } from "node:fs/promises";
import { build } from "esbuild";

const out = new URL("../static/dist/", import.meta.url).pathname;
await rm(out, { recursive: true, force: true });
await build({
  entryPoints: { work: "src/main.js", "keeper.worker": "src/keeper.worker.js", "work.style": "src/work.css" },
  absWorkingDir: new URL(".", import.meta.url).pathname,
  outdir: out,
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["chrome110", "firefox115", "safari16.4"],
  minify: true,
  sourcemap: false,
  legalComments: "linked",
  logLevel: "warning",
});
