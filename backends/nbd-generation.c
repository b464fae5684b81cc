/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-generation.c - is it still one server that all lanes talk to?
 *
 * Theory of operation
 *
 * Each lane has its connection, and a flush by one of them is to cover what was
 * written by all (multi-conn).  That is what one server promises.  Where a server has
 * taken the place of another, some connections may end there while others still end at
 * the old one: a new process listens and the old one serves those it has, or the old
 * one is dead and its last answers are in the sockets of lanes that were slower.  A
 * flush by the new server says nothing of a write that the old one answers after
 * that, and the new one may not have it.
 *
 * So connections have a generation, that of the disk when the attempt to make them
 * began.  A connection that is made after another one of this lane has broken, or after
 * an attempt that failed, may be to another server, and begins a new generation of the
 * disk: unless somebody else has begun one since, which it joins.  What counts is:
 *
 *   - The answer to a change or to a flush, only while its connection is of the disk's
 *     generation.  Later it is none: the request is sent again on a new connection,
 *     which does no harm.  What counts, and that it is remembered
 *     (nbd-unflushed.c), is one step for those who begin a generation.
 *   - A request is not sent by an older connection, which ends with it.
 *
 * A generation begins before what is remembered is read back (nbd-restore.c).  So what
 * older connections had answered is compared with what the new server has, and nothing
 * is added to it after that.  A flush covers what was answered in its own generation,
 * or was compared.
 *
 * A connection that was being made when a generation began may be to either server: it
 * is made once more.
 *
 * What nobody can see here: a server that gives its address to another one while it
 * goes on serving, and no connection breaks and no attempt fails; and then one lane has
 * connected before that, and another after it.
 */
#include "config.h"

#include "nbd.h"

/* An attempt begins. */
void nbd_generation_call(struct nbd_link *link)
{
	link->generation = atomic_load(&link->nbd->generation);
	link->outdated = false;
}

/* It has come to something.  False: it may be to the server of before. */
bool nbd_generation_join(struct nbd_link *link)
{
	struct nbd_disk *nbd = link->nbd;
	bool joined;

	/* Those who note what was answered are before it, or after it. */
	(void)pthread_mutex_lock(&nbd->lock);
	joined = !nbd_is_stale(link);
	if (joined && link->broke_in == link->generation)
		atomic_store(&nbd->generation, ++link->generation);
	(void)pthread_mutex_unlock(&nbd->lock);
	return joined;
}

/* It has come to nothing, or has broken.  An attempt says something of the server
 * that there is now, and a connection of the one that it was made to. */
void nbd_generation_lost(struct nbd_link *link)
{
	if (link->up_since)
		link->broke_in = link->generation;
	else if (!link->outdated)
		link->broke_in = atomic_load(&link->nbd->generation);
}
