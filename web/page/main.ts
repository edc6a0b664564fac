/** The demo page: one engine, four tabs. */
import { startBench } from "./bench.js";
import { startChat } from "./chat.js";
import { startCompatibility } from "./compatibility.js";
import { byId } from "./dom.js";
import { startModel } from "./model.js";
import { startOffline } from "./offline.js";
import { LivePanel } from "./panel.js";
import { startProblems } from "./problems.js";
import { startRace } from "./race.js";
import { Session } from "./session.js";
import { startSettings } from "./settings-form.js";
import { Settings } from "./settings.js";
import { startTabs } from "./tabs.js";

// `?model=…&draft=…&prompt=…` and any setting by its name fill in the fields; nothing loads by itself.
const address = new URLSearchParams(location.search);
const settings = new Settings(address);
const session = new Session();

startProblems();
startSettings(settings, session);
const load = startModel(session, settings, address);
startChat(session, settings, new LivePanel());
startRace(session, settings);
startBench(session, settings, address, load);
const look = startCompatibility();
startTabs((tab) => {
  if (tab === "compatibility") look();
});
const question = address.get("prompt");
if (question !== null) {
  byId("prompt", HTMLTextAreaElement).value = question;
  byId("race-prompt", HTMLTextAreaElement).value = question;
}
void startOffline();
