/** Who is here, for all pages. */
import { createContext, useContext } from "react";
import type { Session } from "../api/types";

export const Here = createContext<Session | null>(null);

/** Whether who is here may change something. */
export const useMayOperate = () => useContext(Here)?.role === "operate";
