/** Keeps the page's own files for a start without a network, and offers a newer version when there is one. */
import { button, part } from "./dom.js";

export async function startOffline(): Promise<void> {
  // There is none where a page came by plain HTTP, in some private windows, and in what embeds a page.
  if (!("serviceWorker" in navigator) || !isSecureContext) return;
  try {
    // Beside the page, wherever that is: its scope is the page's folder.
    const registration = await navigator.serviceWorker.register(new URL("sw.js", document.baseURI));
    let controlled = navigator.serviceWorker.controller !== null;
    let stale = false;
    const offer = () => {
      // The first version takes over by itself; only a later one waits, unless another tab has let it in.
      part("update").hidden = !(stale || (registration.waiting && navigator.serviceWorker.controller));
    };
    offer();
    navigator.serviceWorker.addEventListener("controllerchange", () => {
      stale ||= controlled;
      controlled = true;
      offer();
    });
    registration.addEventListener("updatefound", () => registration.installing?.addEventListener("statechange", offer));
    button("update-now").addEventListener("click", () => {
      if (!registration.waiting) return location.reload();
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      registration.waiting.postMessage("activate");
    });
  } catch {
    // The page works without; only a start without a network does not.
  }
}
